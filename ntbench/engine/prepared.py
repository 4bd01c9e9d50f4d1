"""What a plan needs before any worker asks for it: images, and weights that somebody published."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from ntbench.engine.rehearsal import shares_of
from ntbench.errors import UserError
from ntbench.learn.models import STARTS, start
from ntbench.tasks.data import Domain
from ntbench.types import Arch, Cell, Result, columns_of


def prepared(cells: Iterable[Cell], cache: Path, earlier: Iterable[Result]) -> list[str]:
    """Build the images of all cells, and return what a user ought to know of the files.

    Raises UserError where they cannot be built, lack the samples that are asked of them, or are others than those that
    results of the same folder were computed on, and where published weights cannot be had or do not fit.
    """
    said: dict[str, None] = {}
    known = dict(_hashes(earlier))
    places = {(cell.task.name, cell.task.rehearsal, cell.samples, cell.start.weights): cell for cell in cells}
    for cell in places.values():
        shares = shares_of(cell, cache)
        try:
            shares.source, shares.defenders, shares.owned  # noqa: B018
        except (ValueError, OSError) as error:
            raise UserError(f"the data of {cell.task.title!r} cannot be prepared: {error}") from None
        _start(cell.arch.model_dump_json(), shares.origin.classes, cell.start.weights)
        for domain in (shares.source, shares.target):
            _unchanged(domain, cell.task.image_size, known)
            said |= dict.fromkeys(domain.lines)
    return list(said)


@cache
def _start(arch: str, classes: int, weights: str) -> None:
    """See once whether published weights can be had and fit; UserError where they do not."""
    begun = Arch.model_validate_json(arch)
    if weights or begun.params.keys() & {*STARTS}:
        start(begun, classes, 0, weights)


def _hashes(results: Iterable[Result]) -> Iterator[tuple[tuple[int, str], str]]:
    columns = columns_of(results)
    for task, origin in columns.pairs("task", "provenance"):
        for name, value in (origin.data if origin else {}).items():
            yield (task.image_size, name), value


def _unchanged(domain: Domain, image_size: int, known: dict[tuple[int, str], str]) -> None:
    for part, value in domain.digests.items():
        if known.get((image_size, f"{domain.name}/{part}"), value) != value:
            raise UserError(
                f"domain {domain.name!r}: its {part} images are not those of the results in this folder, which stay "
                "under the same keys; give another --out"
            )
