"""Releases of a zoo beside what was published of them: recipes, data, and which source images they get right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ntbench.engine.zoo import Kept

from .published import Board
from .rebuilt import recipes
from .schema import Published

UNCOMPARED = {"pretrain_seconds", "protect_seconds", "drawn"}
"""What differs from one machine to another, and pictures, which are not published."""


def release_differences(releases: Sequence[Kept], board: Board) -> Iterator[str]:
    """Yield how releases differ from those of a published board, a line each; rows that it lacks are passed over.

    Compared are the hash of the recipe, those of every split of the data, and all facts but times and pictures: what
    clean model and release get right of source images, FLOPs and steps among them.
    """
    files = {(file.task.name, file.defense.label): file for file in board.files.values()}
    for kept in releases:
        file = files.get((kept.cell.task.name, kept.cell.defense.label))
        if file and kept.cell.seed in file.protections:
            name = f"{kept.cell.defense.label}, seed {kept.cell.seed}, {kept.cell.task.name}"
            yield from (f"{name}: {what}" for what in _differences(kept, file))


def known(releases: Sequence[Kept], board: Board) -> int:
    """Return how many of the releases a board says something of."""
    seeds = {(f.task.name, f.defense.label, seed) for f in board.files.values() for seed in f.protections}
    return len({(k.cell.task.name, k.cell.defense.label, k.cell.seed) for k in releases} & seeds)


def _differences(kept: Kept, file: Published) -> Iterator[str]:
    build = recipes(file)
    keys = {build(cell).protect_key for cell in file.cells if cell.seed == kept.cell.seed}
    if kept.cell.protect_key not in keys:
        yield "its recipe is not the published one"
    for split in sorted(s for s, held in kept.provenance.data.items() if file.data.get(s) != held):
        yield f"the data of {split} differ"
    ours, theirs = (p.model_dump(exclude=UNCOMPARED) for p in (kept.protection, file.protections[kept.cell.seed]))
    if found := [name for name, value in ours.items() if theirs.get(name) != value]:
        yield f"{', '.join(found)} differ"
