"""Where images come from: one module a family of domains, found by its file in this package."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ntbench.domains._files import data_root as data_root
from ntbench.errors import UserError, unknown
from ntbench.registry import registry
from ntbench.sources import code_digest, source_file
from ntbench.types import digest

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Labelled = tuple[Images, Labels]
PARTS = ("train", "val", "test")


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


def describe_domains() -> dict[str, str]:
    """Return one line about every domain by its name, without building any."""
    return {name: family.domains[name] for name, family in sorted(families().items())}


def find(name: str) -> Family:
    """Return the family that builds a domain, ours or somebody's own; UserError where there is none."""
    table = families()
    prefix, colon, _ = name.partition(":")
    key = f"{prefix}:PATH" if colon else name
    if key in table:
        return table[key]
    # Only now: taking in what packages offer imports them.
    if key in registry.names("domain"):
        return registry.get("domain", key).family()  # type: ignore[no-any-return]
    raise unknown("domain", name, {*table, *registry.names("domain")})


class Dataset:
    """A domain of one's own: derive, set `name`, return images from `build`, and decorate the class with `register`.

    The docstring's first line stands in lists. The class's file is part of what decides whether cached images are
    still right, and so are `version` and `fingerprint`.
    """

    kind: ClassVar[str] = "domain"
    name: ClassVar[str]
    version: ClassVar[int] = 1

    def build(self, image_size: int) -> Raw:
        """Return the images in three splits; where they have no common size, as squares of `image_size` pixels."""
        raise NotImplementedError(f"{type(self).__name__}.build")

    def fingerprint(self) -> str:
        """Return a text that changes with the files that are read, if any are."""
        return ""

    @classmethod
    def family(cls) -> Family:
        """Return the class as a family of one domain."""
        if cls.name in families():
            raise UserError(f"domain {cls.name!r} of {source_file(cls)} has the name of one of ours; rename it")
        return Family(
            version=cls.version,
            domains={cls.name: (inspect.getdoc(cls) or "").partition("\n")[0]},
            build=lambda name, image_size: _sound(name, cls().build(image_size)),
            fingerprint=lambda name: digest([code_digest(cls), cls().fingerprint()]),
        )


def _sound(name: str, raw: Raw) -> Raw:
    """Return what a domain of somebody's own builds; UserError tells where it is not what it should be."""
    for part in PARTS:
        images, labels = getattr(raw, part)
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)):
            said, wanted = f"images {images.dtype} {images.shape}", "uint8 [n, h, w] or [n, h, w, 3]"
        elif labels.dtype != np.int64 or labels.shape != images.shape[:1] or not len(labels):
            said, wanted = f"labels {labels.dtype} {labels.shape}", f"int64 [{len(images)}], of at least one"
        elif not 0 <= labels.min() <= labels.max() < raw.classes:
            said, wanted = f"labels from {labels.min()} to {labels.max()}", f"0 to {raw.classes - 1}"
        else:
            continue
        raise UserError(f"domain {name!r}: {part} has {said}, not {wanted}; mend `build`")
    if raw.class_names and len(raw.class_names) != raw.classes:
        raise UserError(f"domain {name!r}: {len(raw.class_names)} names for {raw.classes} classes; mend `build`")
    if raw.views < 1 or len(raw.test[1]) % raw.views:
        raise UserError(f"domain {name!r}: {len(raw.test[1])} test images are no {raw.views} views; mend `build`")
    return raw
