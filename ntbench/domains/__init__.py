"""Where images come from: one module a family of domains, found by its file in this package."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ntbench.errors import unknown

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Labelled = tuple[Images, Labels]


@dataclass(frozen=True)
class Raw:
    """A domain as its family builds it: uint8 images [n, h, w] or [n, h, w, 3] and labels [n] from 0 to classes - 1.

    `views` times over, the test images show the same originals in the same order. `class_names` are in the order of the
    labels, and `remarks` are what a user ought to know of how the files were read.
    """

    classes: int
    train: Labelled
    val: Labelled
    test: Labelled
    views: int = 1
    class_names: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def unchanging(name: str) -> str:
    """Return the fingerprint of data that are embedded or verified by a published checksum."""
    return ""


@dataclass(frozen=True)
class Family:
    """What a module of this package offers as `FAMILY`; a name that ends in `:PATH` takes a path in its place.

    `build(name, image_size)` may use the image size in pixels where its images have no common size. The version must
    rise with every change of what is built, and the fingerprint changes with files that the user may edit.
    """

    version: int
    domains: Mapping[str, str]
    build: Callable[[str, int], Raw]
    fingerprint: Callable[[str], str] = unchanging


@cache
def families() -> dict[str, Family]:
    """Return the family of every domain by the domain's name; modules that start with an underscore are no families."""
    table: dict[str, Family] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_")):
        family: Family = importlib.import_module(f"{__name__}.{module}").FAMILY
        if taken := table.keys() & family.domains.keys():
            raise ValueError(f"ntbench/domains/{module}.py: {sorted(taken)} stand in another file too; rename them")
        table |= dict.fromkeys(family.domains, family)
    return table


def find(name: str) -> Family:
    """Return the family that builds a domain; UserError where there is none."""
    table = families()
    prefix, colon, _ = name.partition(":")
    key = f"{prefix}:PATH" if colon else name
    if key not in table:
        raise unknown("domain", name, table)
    return table[key]
