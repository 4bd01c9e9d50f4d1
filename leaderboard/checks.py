"""Checks of published boards: the attacks that win, at a longer horizon, beside what the board says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ntbench.errors import UserError
from ntbench.measure.intervals import Interval
from ntbench.measure.verdicts import Numbers, verdict
from ntbench.report.columns import DEFENSE, LEAK, SPEEDUP, Column
from ntbench.report.display import bounded, records, text, with_interval
from ntbench.report.views import View
from ntbench.suite import Suite
from ntbench.types import Result, Task

from .publish import publish as write_rows
from .published import Board
from .schema import SUITE, PublishedSuite, read

FOLDER = "checks"
PLACE = ("track", "defense", "mask")
SPANS = ("leak", "speedup", "drop")


def publish(results: Iterable[Result], suite: Suite, leaderboard: Path) -> list[Path]:
    """Write a finished run at a longer horizon beside the board that it checks, and return the paths of all files.

    Raises UserError where no board of the suite's version is published or its horizon is as long, and as publishing
    does.
    """
    place = leaderboard / "results" / suite.name / SUITE
    if not place.exists() or (held := read(place, PublishedSuite).suite).protocol != suite.protocol:
        raise UserError(f"no board of {suite.protocol} is published in {leaderboard}; publish the board first")
    if suite.horizon <= held.horizon:
        raise UserError(
            f"the run goes to {suite.horizon:g} T90 and the published board to {held.horizon:g}; a check goes further: "
            f"ntbench run {suite.name} --horizon {2 * held.horizon:g}"
        )
    return write_rows(results, suite, leaderboard / FOLDER)


def checked(board: Board, task: Task, folder: Path) -> list[View]:
    """Return a table of what a board's rows say at the horizon of its check, none where there is no check of it."""
    if not (folder / board.suite.name / SUITE).exists():
        return []
    check = Board.read(folder / board.suite.name)
    if check.suite.protocol != board.suite.protocol:
        return []
    rows = list(_rows(board, check, task))
    here, there = (f"{suite.horizon:g} T90" for suite in (board.suite, check.suite))
    names = "; ".join(dict.fromkeys(label for entry in check.suite.attacks for label, _ in entry.variants()))
    note = (
        f"Attacks that ran up to {there}: {names}. Verdicts are what the intervals alone say, since a check lacks "
        "attacks that the gates ask for. Brackets: 95% intervals."
    )
    return [View("check", f"At {there} in place of {here}", _columns(here, there), rows, note)] if rows else []


def _rows(board: Board, check: Board, task: Task) -> Iterator[Mapping[str, Any]]:
    there = {tuple(row[name] for name in PLACE): row for row in records(check.table) if row["task"] == task.name}
    for row in records(board.table):
        found = there.get(tuple(row[name] for name in PLACE))
        if row["task"] == task.name and row["track"] == "target" and not row["baseline"] and found:
            words = {"here": _judged(row, board.suite), "there": _judged(found, check.suite)} if row["verdict"] else {}
            yield row | {f"there_{name}": value for name, value in found.items()} | words


def _judged(row: Mapping[str, Any], suite: Suite) -> str:
    leak, speedup, drop = (Interval(*(row[f"{name}{end}"] for end in ("", "_low", "_high"))) for name in SPANS)
    return verdict(Numbers(leak, speedup, drop, len(suite.seeds)), (), suite.max_drop)[0]


def _columns(here: str, there: str) -> tuple[Column, ...]:
    return (
        DEFENSE,
        LEAK,
        Column(f"Leak at {there}", "there_leak", lambda row: with_interval(row, "there_leak", signed=False)),
        SPEEDUP,
        Column(f"Speed-up at {there}", "there_speedup", lambda row: bounded(row, "there_speedup", "<")),
        Column("Verdict", "here", lambda row: text(row, "here"), numeric=False),
        Column(f"Verdict at {there}", "there", lambda row: text(row, "there"), numeric=False),
    )
