"""Verifying: one published cell computed again from its recipe, and compared with what was published."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from ntbench import __version__
from ntbench.errors import UserError, unknown
from ntbench.measure.differences import cell_differences
from ntbench.registry import registry
from ntbench.report.files import write_whole
from ntbench.report.words import worded
from ntbench.sources import code_digest
from ntbench.types import Cell, MethodSpec, Result, digest

from .rebuilt import recipes, results_of
from .schema import SUITE, Published, PublishedCell, Verified, read

Run = Callable[[Cell], Result]


@dataclass(frozen=True)
class Check:
    """One cell, computed again: what differs from the published file, and what of the code or versions has changed."""

    path: Path
    cell: Cell
    differences: tuple[str, ...]
    changes: tuple[str, ...]

    @property
    def matches(self) -> bool:
        """Return whether the cell is as published."""
        return not self.differences

    def __str__(self) -> str:
        """Return the outcome in words."""
        cell = self.cell
        where = f"{cell.attack.label}, {cell.mask}, {cell.samples} samples, seed {cell.seed}, {cell.knowledge}"
        said = "matches" if self.matches else "differs: " + "; ".join(self.differences)
        changed = f" (changed since: {'; '.join(self.changes)})" if self.changes else ""
        return f"{self.path}: {where}: {said}{changed}"


def verify(place: Path, run: Run, key: str = "", seed: int | None = None) -> Check:
    """Compute a published cell again with `run` and compare budgets, scores, images, costs and the source.

    `place` is a published file or a folder of them. Without a key the cell is drawn, by `seed` if one is given, among
    those that finished. Where it matches, the file says so from then on. Raises UserError where there is no such cell.
    """
    path, file, index = _chosen(place, key, seed)
    cell, published = file.cells[index], results_of(file)[index]
    recipe, changes = today(published.cell)
    found = run(recipe)
    check = Check(path, published.cell, tuple(_differences(file, cell, published, found)), tuple(changes))
    if check.matches:
        write_whole(path, _marked(file, published.cell.key).text().encode())
    return check


def today(cell: Cell) -> tuple[Cell, list[str]]:
    """Return a cell with the code of its methods that is installed, and what changed; UserError on unknown ones."""
    changes: list[str] = []
    specs: dict[str, MethodSpec] = {}
    for spec in (cell.defense, cell.attack):
        specs[spec.kind] = new = _installed(spec)
        if new.code != spec.code:
            changes.append(f"the code of {spec.kind} {spec.name!r}, {spec.code} then and {new.code} now")
    return Cell.model_validate(cell.model_dump() | {kind: spec.model_dump() for kind, spec in specs.items()}), changes


def _installed(spec: MethodSpec) -> MethodSpec:
    return spec.model_copy(update={"code": code_digest(registry.get(spec.kind, spec.name))})


def _chosen(place: Path, key: str, seed: int | None) -> tuple[Path, Published, int]:
    if not place.exists():
        raise UserError(f"{str(place)!r} does not exist; give a published file or a folder of them")
    paths = [place] if place.is_file() else sorted(p for p in place.rglob("*.json") if (p.parents[1] / SUITE).exists())
    if not paths:
        raise UserError(f"{str(place)!r} holds no published rows; write some with `ntbench publish RUN`")
    return _named(paths, key) if key else _drawn(paths, random.Random(seed))


def _named(paths: Sequence[Path], key: str) -> tuple[Path, Published, int]:
    keys: list[str] = []
    for path in paths:
        file = read(path, Published)
        build = recipes(file)
        for k, cell in enumerate(file.cells):
            keys.append(build(cell).key)
            if keys[-1] == key:
                return path, file, k
    raise unknown("published cell", key, keys)


def _drawn(paths: Sequence[Path], draw: random.Random) -> tuple[Path, Published, int]:
    for path in draw.sample(paths, len(paths)):
        file = read(path, Published)
        finished = [k for k, cell in enumerate(file.cells) if cell.status == "ok"]
        if finished:
            return path, file, draw.choice(finished)
    raise UserError(f"{paths[0]}: no cell finished; give another folder")


def _differences(file: Published, cell: PublishedCell, published: Result, found: Result) -> Iterator[str]:
    yield from cell_differences(published, found)
    ours = found.trajectory
    if ours.step != published.trajectory.step:
        return
    if cell.images and digest(ours.correct)[:8] != cell.images:
        yield worded("other test images are right", file.objective.name)
    data = found.provenance.data if found.provenance else {}
    for split in (split for split, held in data.items() if file.data.get(split) != held):
        yield f"the data of {split} differ"


def _marked(file: Published, key: str) -> Published:
    now = date.today().isoformat()
    held = [mark for mark in file.verified if (mark.version, mark.date) != (__version__, now)]
    same = [mark for mark in file.verified if mark not in held]
    cells = sorted({key, *(k for mark in same for k in mark.cells)})
    mark = Verified(version=__version__, date=now, cells=tuple(cells))
    return file.model_copy(update={"verified": (*held, mark)})
