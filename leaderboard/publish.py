"""Publishing: a run's results join a board, whose rows are worked out from what is published alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from itertools import chain, product
from pathlib import Path
from typing import Any

from ntbench.errors import UserError
from ntbench.measure.tables import COORDINATES, places_of
from ntbench.report.files import write_whole
from ntbench.suite import Suite
from ntbench.types import Columns, Result, Task, columns_of

from .cells import published
from .history import base, remembered
from .needed import Run, needed_runs
from .published import Board, merged
from .rebuilt import results_of
from .schema import SUITE, Published, PublishedSuite

MAX_BYTES = 250_000
_LABEL = re.compile(r"[\w(][\w ()=,.+-]*")


def publish(results: Iterable[Result], suite: Suite, folder: Path, day: date | None = None) -> list[Path]:
    """Write a finished run into a results folder, one file per defense and task, and return the paths of all files.

    Rows that the board holds already stay; ranks and leaks of all are worked out again. A later version of the suite
    takes the place of the whole board. A row that says something else than before remembers what it said until `day`,
    today by default. The same results give the same bytes. Raises UserError where the run is not finished, where it
    does not belong to the board, or where a file would be too large; nothing is written then.
    """
    found = columns_of(results)
    if suite.releases:
        raise UserError(
            f"{suite.protocol} attacks files of weights, which nobody else can make; publish what made them"
        )
    _all_there(found, suite)
    held = Board.read(folder / suite.name) if (folder / suite.name / SUITE).exists() else Board(suite, {})
    board = remembered(joined(base(held, suite), found, suite).recomputed(), held, day or date.today())
    texts = {folder / place: file.text() for place, file in board.files.items()}
    for path, text in texts.items():
        if len(text.encode()) > MAX_BYTES:
            raise UserError(f"{path}: {len(text)} bytes exceed {MAX_BYTES}; publish a suite of fewer attacks or counts")
    texts[folder / suite.name / SUITE] = PublishedSuite(suite=board.suite).text()
    for path, text in texts.items():
        write_whole(path, text.encode())
    return list(texts)


def joined(held: Board, results: Columns, suite: Suite) -> Board:
    """Return a board with a run's results in place of what it held of the same rows; its rows are those of before."""
    whole = merged(held.suite, suite)
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.cell.task.name, result.cell.defense.label), []).append(result)
    stay = {p: file for p, file in held.files.items() if (file.task.name, file.defense.label) not in groups}
    told = {place: results_of(file) for place, file in stay.items()}
    needed = needed_runs(chain(*told.values(), *groups.values()) if told else results, whole)
    for group in groups.values():
        file, found = _fresh(group, whole, needed, held.files)
        stay[file.place], told[file.place] = file, found
    return Board(whole, dict(sorted(stay.items())), told)


def _fresh(
    results: list[Result], suite: Suite, needed: set[Run], held: Mapping[Path, Published]
) -> tuple[Published, list[Result]]:
    label = results[0].cell.defense.label
    if not _LABEL.fullmatch(label):
        raise UserError(f"defense label {label!r} cannot name a folder; relabel it with letters, digits, _ - . +")
    file, found = published(results, suite, needed)
    before = held.get(file.place)
    same = before is not None and _scores(before) == _scores(file)
    return file.model_copy(update={"verified": before.verified}) if before and same else file, found


def _scores(file: Published) -> list[Any]:
    return [file.keys, file.val_of, file.test_of, *((cell.val, cell.test) for cell in file.cells)]


def _all_there(results: Columns, suite: Suite) -> None:
    if not len(results):
        raise UserError(f"no results of {suite.protocol} to publish; run `ntbench run {suite.name}` first")
    there = set(zip(*(column.tolist() for column in places_of(results, COORDINATES).values()), strict=True))
    missing = [place for task in suite.tasks for place in planned(suite, task) if place not in there]
    if missing:
        task, defense, attack, mask, samples, seed, knowledge = missing[0]
        raise UserError(
            f"{len(missing)} cells of {suite.protocol} have not run, first {attack!r} ({mask}, {knowledge}) on "
            f"{defense}, {task}, at {samples} samples, seed {seed}; finish it with `ntbench run` first"
        )


def planned(suite: Suite, task: Task) -> Iterator[tuple[Any, ...]]:
    """Yield the coordinates of every cell that a suite has on a task, whether or not its attack applies."""
    rows = [(row, defense.name) for defense in suite.defenses for row in defense.rows]
    known = ("others", "own") if suite.own else ("others",)
    counts = [level.samples for level in task.levels]
    for (row, name), (entry, label, mask) in product(rows, suite.planned):
        if entry.protocol is None and entry.faces(row, name):
            yield from ((task.name, row, label, mask, *rest) for rest in product(counts, suite.seeds, known))
