"""Checks of published boards: a longer horizon, more seeds or further attacks, beside what boards say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ntbench.errors import UserError
from ntbench.measure.board import leaderboard_table
from ntbench.measure.intervals import Interval
from ntbench.measure.verdicts import Numbers, verdict
from ntbench.report.columns import DEFENSE, Column
from ntbench.report.display import Record, bounded, records, text, with_interval
from ntbench.report.sentences import gate_line
from ntbench.report.views import View
from ntbench.suite import Suite, joined_attacks
from ntbench.types import Result, Task, with_mask

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
    adds: bool = False
    """Whether its attacks stand beside those of the board, where others repeat some of them."""

    def told(self, suite: Suite) -> str:
        """Return how far a suite goes, such as `at 32 T90`."""
        return f"{self.preposition} {self.reach(suite):g} {self.unit}"


WAYS = (
    Way("horizon", lambda suite: suite.horizon, "T90", "at"),
    Way("seeds", lambda suite: len(suite.seeds), "seeds", "with"),
    Way("attacks", lambda suite: len(suite.planned), "attacks", "with", adds=True),
)


def folders(leaderboard: Path) -> list[Path]:
    """Return the folders of checks that a leaderboard has, each of which holds files as `results` does."""
    return [place for way in WAYS if (place := leaderboard / FOLDER / way.folder).is_dir()]


def publish(results: Iterable[Result], suite: Suite, leaderboard: Path) -> list[Path]:
    """Write a finished run beside the board that it checks, and return the paths of all files.

    Raises UserError where no board of the suite's version is published or goes as far, where it has another attack of
    the same label, and as publishing does.
    """
    place = leaderboard / "results" / suite.name / SUITE
    if not place.exists() or (held := read(place, PublishedSuite).suite).protocol != suite.protocol:
        raise UserError(f"no board of {suite.protocol} is published in {leaderboard}; publish the board first")
    whole = _beside(held, suite)
    way = next((way for way in WAYS if way.reach(whole) > way.reach(held)), None)
    if way is None or any(other.reach(whole) < other.reach(held) for other in WAYS):
        here, there = (" ".join(way.told(each) for way in WAYS) for each in (held, whole))
        raise UserError(
            f"the run is one {there} and the published board one {here}; a check goes further, and nowhere less far: "
            f"ntbench run {suite.name} --horizon {2 * held.horizon:g}, or --seeds {2 * len(held.seeds)}, or --attack "
            "NAME with one that the board lacks"
        )
    return write_rows(results, suite, leaderboard / FOLDER / way.folder)


def _beside(held: Suite, suite: Suite) -> Suite:
    """Return a run's suite with the attacks of the board besides."""
    attacks = joined_attacks(held.attacks, suite.attacks)
    if attacks is None:
        raise UserError(f"{suite.protocol}: an attack of the run has the label of another one of the board; rename it")
    return suite.model_copy(update={"attacks": attacks})


@dataclass(frozen=True)
class Check:
    """A board and what goes further than it in one way."""

    way: Way
    board: Board
    further: Board

    @cached_property
    def suite(self) -> Suite:
        """Return what the check and its board come to."""
        return _beside(self.board.suite, self.further.suite) if self.way.adds else self.further.suite

    @cached_property
    def here(self) -> pd.DataFrame:
        """Return the board's rows, under the attacks of the check alone where that repeats some: one thing differs."""
        if self.way.adds:
            return self.board.table
        attacks = {(label, mask) for _, label, mask in self.further.suite.planned}
        results = [r for r in self.board.results if (r.cell.attack.label, r.cell.mask) in attacks]
        return leaderboard_table(results, self.board.suite.model_copy(update={"attacks": self.further.suite.attacks}))

    @cached_property
    def there(self) -> pd.DataFrame:
        """Return the rows of the check, under the attacks of the board too where that adds some."""
        if not self.way.adds:
            return self.further.table
        return leaderboard_table([*self.board.results, *self.further.results], self.suite)

    def views(self, task: Task) -> Iterator[View]:
        """Yield the table of a task, where it has rows in both."""
        found = [row for row in records(self.there) if row["task"] == task.name and row["track"] == "target"]
        if rows := list(self._rows(task, found)):
            there, here = (self.way.told(suite) for suite in (self.suite, self.board.suite))
            title = f"{there[:1].upper()}{there[1:]} in place of {self.way.reach(self.board.suite):g} {self.way.unit}"
            yield View("check", title, _columns(here, there), rows, self._note(found, there))

    def _note(self, found: Sequence[Record], there: str) -> str:
        names = "; ".join(with_mask(label, mask) for _, label, mask in self.further.suite.planned)
        ran = "The attacks that came on top" if self.way.adds else f"The attacks that ran {there}, in all columns"
        judged = [row for row in found if row["verdict"]]
        return (
            f"{ran}: {names}. Verdicts are what the intervals of these columns alone say: those of the board stand "
            f"above. Brackets: 95% intervals. {gate_line(judged, there)}"
        )

    def _rows(self, task: Task, found: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        there = {tuple(row[name] for name in PLACE): row for row in found}
        for row in records(self.here):
            other = there.get(tuple(row[name] for name in PLACE))
            if row["task"] == task.name and row["track"] == "target" and not row["baseline"] and other:
                judged = {"here": self._judged(row), "there": self._judged(other)} if row["verdict"] else {}
                yield row | {f"there_{name}": value for name, value in other.items()} | judged

    def _judged(self, row: Mapping[str, Any]) -> str:
        leak, speedup, drop = (Interval(*(row[f"{name}{end}"] for end in ("", "_low", "_high"))) for name in SPANS)
        return verdict(Numbers(leak, speedup, drop, row["seeds"]), (), self.board.suite.max_drop)[0]


def checks_of(board: Board, leaderboard: Path) -> list[Check]:
    """Read the checks of a board that are published."""
    places = ((way, leaderboard / FOLDER / way.folder / board.suite.name) for way in WAYS)
    checks = [Check(way, board, Board.read(place)) for way, place in places if (place / SUITE).exists()]
    return [check for check in checks if check.further.suite.protocol == board.suite.protocol]


def _columns(here: str, there: str) -> tuple[Column, ...]:
    sides = (("", here), ("there_", there))
    return (
        DEFENSE,
        *(_leak(f"Leak {told}", f"{side}leak") for side, told in sides),
        *(_speedup(f"Speed-up {told}", f"{side}speedup") for side, told in sides),
        _verdict(f"Verdict {here}", "here"),
        _verdict(f"Verdict {there}", "there"),
    )


def _leak(heading: str, name: str) -> Column:
    return Column(heading, name, lambda row: with_interval(row, name, signed=False))


def _speedup(heading: str, name: str) -> Column:
    return Column(heading, name, lambda row: bounded(row, name))


def _verdict(heading: str, name: str) -> Column:
    return Column(heading, name, lambda row: text(row, name), numeric=False)
