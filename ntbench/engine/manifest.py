"""What a run's folder is to hold: the suite, what was asked for, and the key of every cell."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, ValidationError
from pydantic_core import from_json

from ntbench.errors import UserError
from ntbench.suite import Suite, joined_attacks
from ntbench.types import Columns, Factor, Recipe

_FILE = "manifest.json"
T = TypeVar("T")


class Manifest(Recipe):
    """The plan of a run; `cells` maps coordinates to keys, `asked` names those of the last command."""

    # Hardly any two texts of a plan are the same: looking for one that was read before costs more than it saves.
    model_config = ConfigDict(cache_strings="none")

    suite: Suite
    request: str
    sources: dict[str, str]
    cells: dict[str, str]
    asked: tuple[str, ...]

    def labelled(self, columns: Columns) -> Columns:
        """Return the results that belong to the plan, under the labels that their methods have in it."""
        keys = np.array([*self.cells.values()], dtype=np.str_)
        order = np.argsort(keys, kind="stable")
        # Of several places of one recipe the last counts.
        found = np.searchsorted(keys, columns.keys, side="right", sorter=order) - 1
        rows = np.flatnonzero((found >= 0) & (keys[order[found]] == columns.keys)) if len(keys) else order
        labels, codes = self._labels()
        held, codes = columns.take(rows), codes[order[found[rows]]]
        for name, told in zip(("defense", "attack"), zip(*labels, strict=True), strict=False):
            held = held.with_part(name, _relabelled(held.parts[name], told, codes))
        return held

    def _labels(self) -> tuple[list[tuple[str, str]], NDArray[np.intp]]:
        """Return the labels of a defense and an attack that cells have, and which of them each cell has."""
        # Mask, samples, seed and knowledge hold no comma, and few cells differ in anything else.
        heads = [place.rsplit(",", 4)[0] for place in self.cells]
        known = {head: k for k, head in enumerate(dict.fromkeys(heads))}
        places = (from_json(f"{head}]") for head in known)
        codes = np.fromiter(map(known.__getitem__, heads), dtype=np.intp, count=len(heads))
        return [(defense, attack) for _, defense, attack in places], codes

    def answers(self, request: str) -> bool:
        """Return whether this is the plan of a request and the methods' files are still the same."""
        return self.request == request and fingerprints(self.sources) == self.sources

    def after(self, earlier: Manifest | None) -> Manifest:
        """Return the plan that adds this one to an earlier one of the same grid; cells of equal place are replaced.

        A plan only grows, in rows, attacks, seeds, tasks and what is known of their domains: what a folder holds is
        one board, whoever asked for it last.
        """
        if earlier is None:
            return self
        held, own = earlier.suite, self.suite
        objective = held.objective.joined(own.objective)
        grown = {"defenses": (), "attacks": (), "seeds": (), "tasks": (), "objective": objective}
        if objective is None or held.model_copy(update=grown) != own.model_copy(update=grown):
            return self
        attacks = joined_attacks(held.attacks, own.attacks)
        if attacks is None:
            return self
        named = {row for entry in own.defenses for row in entry.rows}
        kept = (entry for entry in held.defenses if not named & {*entry.rows})
        union = {
            "objective": objective,
            "defenses": (*own.defenses, *kept),
            "attacks": attacks,
            "seeds": tuple(sorted({*held.seeds, *own.seeds})),
            "tasks": tuple(({task.name: task for task in held.tasks} | {t.name: t for t in own.tasks}).values()),
        }
        return self.model_copy(update={"suite": own.model_copy(update=union), "cells": earlier.cells | self.cells})

    def write(self, folder: Path) -> None:
        """Write the plan, whole or not at all.

        Raises UserError where the folder takes no files.
        """
        unfinished = folder / f"{_FILE}.tmp"
        try:
            unfinished.write_text(self.model_dump_json(), encoding="utf-8")
            os.replace(unfinished, folder / _FILE)
        except OSError as error:
            raise UserError(f"{str(folder)!r} cannot be written: {error}; free space or give another --out") from None


def _relabelled(factor: Factor, labels: Sequence[str], rows: NDArray[np.intp]) -> Factor:
    """Return the rows' specifications under the labels that they have by code, which are no part of a recipe."""
    names = list(dict.fromkeys(labels))
    place = {label: k for k, label in enumerate(names)}
    wanted = np.array([place[label] for label in labels], dtype=np.int64)[rows]
    other = np.flatnonzero(factor.coded(lambda spec: spec.label, names) != wanted)
    pairs, added = np.unique(factor.codes[other] * np.int64(len(names)) + wanted[other], return_inverse=True)
    said = ((factor.values[pair // len(names)], names[pair % len(names)]) for pair in pairs.tolist())
    values = (*factor.values, *(spec.model_copy(update={"label": label}) for spec, label in said))
    codes = factor.codes.astype(np.min_scalar_type(-max(len(values), 1)))
    codes[other] = len(factor.values) + added
    return Factor(codes, values)


def read_manifest(folder: Path) -> Manifest | None:
    """Return the plan of a folder, or None where there is none.

    Raises UserError on a damaged one.
    """
    return _told(folder, _read)


def read_suite(folder: Path) -> Suite | None:
    """Return the suite of a folder's plan as `read_manifest` does; it outlives the plan that is let go of."""
    return _told(folder, _suite)


def let_go() -> None:
    """Keep no plan in memory, where that of a million cells takes what a board takes; it is read again if need be."""
    _read.cache_clear()


def _told(folder: Path, tell: Callable[..., T]) -> T | None:
    file = folder / _FILE
    if not file.exists():
        return None
    try:
        return tell(file, os.stat(file).st_ino, os.stat(file).st_mtime_ns)
    except ValidationError as error:
        raise UserError(f"{str(file)!r} is damaged ({error.errors()[0]['msg']}); delete it and run again") from None


@lru_cache(maxsize=1)
def _read(file: Path, *state: int) -> Manifest:
    # Of a million cells it takes seconds, and a command asks for it again and again.
    return Manifest.model_validate_json(file.read_bytes())


@lru_cache(maxsize=1)
def _suite(file: Path, *state: int) -> Suite:
    return _read(file, *state).suite


def fingerprints(files: dict[str, str] | list[str]) -> dict[str, str]:
    """Return the SHA-256 of files by path; a file that is gone has an empty one."""
    return {file: hashlib.sha256(Path(file).read_bytes()).hexdigest() if Path(file).is_file() else "" for file in files}
