"""Checks of published boards: the attacks that win, at a longer horizon or with more seeds, beside what boards say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Way:
    """A way in which a check goes further than its board, and the folder of the checks that do."""

    folder: str
    reach: Callable[[Suite], float]
    unit: str
    preposition: str

    def told(self, suite: Suite) -> str:
        """Return how far a suite goes, such as `at 32 T90`."""
        return f"{self.preposition} {self.reach(suite):g} {self.unit}"


WAYS = (
    Way("horizon", lambda suite: suite.horizon, "T90", "at"),
    Way("seeds", lambda suite: len(suite.seeds), "seeds", "with"),
)


def folders(leaderboard: Path) -> list[Path]:
    """Return the folders of checks that a leaderboard has, each of which holds files as `results` does."""
    return [place for way in WAYS if (place := leaderboard / FOLDER / way.folder).is_dir()]


def publish(results: Iterable[Result], suite: Suite, leaderboard: Path) -> list[Path]:
    """Write a finished run beside the board that it checks, and return the paths of all files.

    Raises UserError where no board of the suite's version is published or goes as far, and as publishing does.
    """
    place = leaderboard / "results" / suite.name / SUITE
    if not place.exists() or (held := read(place, PublishedSuite).suite).protocol != suite.protocol:
        raise UserError(f"no board of {suite.protocol} is published in {leaderboard}; publish the board first")
    way = next((way for way in WAYS if way.reach(suite) > way.reach(held)), None)
    if way is None:
        here, there = (" ".join(way.told(each) for way in WAYS) for each in (held, suite))
        raise UserError(
            f"the run is one {there} and the published board one {here}; a check goes further: "
            f"ntbench run {suite.name} --horizon {2 * held.horizon:g}, or --seeds {2 * len(held.seeds)}"
        )
    return write_rows(results, suite, leaderboard / FOLDER / way.folder)


def checks_of(board: Board, leaderboard: Path) -> dict[Way, Board]:
    """Read the checks of a board that are published."""
    places = {way: leaderboard / FOLDER / way.folder / board.suite.name for way in WAYS}
    checks = {way: Board.read(place) for way, place in places.items() if (place / SUITE).exists()}
    return {way: check for way, check in checks.items() if check.suite.protocol == board.suite.protocol}


def checked(board: Board, task: Task, checks: Mapping[Way, Board]) -> list[View]:
    """Return a table of what a board's rows say in each of its checks."""
    return [view for way, check in checks.items() for view in _views(board, check, task, way)]


def _views(board: Board, check: Board, task: Task, way: Way) -> Iterator[View]:
    rows = list(_rows(board, check, task))
    there, here = way.told(check.suite), f"{way.reach(board.suite):g} {way.unit}"
    names = "; ".join(dict.fromkeys(label for entry in check.suite.attacks for label, _ in entry.variants()))
    note = (
        f"Attacks that ran {there}: {names}. Verdicts are what the intervals alone say, since a check lacks attacks "
        "that the gates ask for. Brackets: 95% intervals."
    )
    if rows:
        yield View("check", f"{there[:1].upper()}{there[1:]} in place of {here}", _columns(there), rows, note)


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


def _columns(there: str) -> tuple[Column, ...]:
    return (
        DEFENSE,
        LEAK,
        Column(f"Leak {there}", "there_leak", lambda row: with_interval(row, "there_leak", signed=False)),
        SPEEDUP,
        Column(f"Speed-up {there}", "there_speedup", lambda row: bounded(row, "there_speedup", "<")),
        Column("Verdict", "here", lambda row: text(row, "here"), numeric=False),
        Column(f"Verdict {there}", "there", lambda row: text(row, "there"), numeric=False),
    )
