"""Whether published boards rank the defenses that they share alike: digits and photos, small and large networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isnan

from ntbench.measure.intervals import Interval
from ntbench.measure.rankings import FEWEST, ranked_alike, uplifts
from ntbench.measure.standing import Standing
from ntbench.report.display import listed, number
from ntbench.types import NONE, MethodSpec, Task

from .published import Board

Pair = tuple[MethodSpec, MethodSpec]


@dataclass(frozen=True)
class Side:
    """A task of a published board."""

    board: Board
    task: Task

    @property
    def title(self) -> str:
        """Return what the page calls the board, with its network."""
        return f"{self.board.suite.protocol}: {self.task.title}, {self.board.suite.arch.name}"

    @property
    def ranked(self) -> list[MethodSpec]:
        """Return what has a rank, in the suite's order, without the unprotected release, which leaks 1 everywhere."""
        table, suite = self.board.table, self.board.suite
        placed = {*table[(table["task"] == self.task.name) & table["rank"].notna()]["defense"]}
        files = [file for file in self.board.files.values() if file.task.name == self.task.name]
        specs = {file.defense.label: file.defense for file in files if file.defense.name != NONE}
        return [specs[row] for entry in suite.defenses for row in entry.rows if row in placed & specs.keys()]

    def standings(self, specs: Iterable[MethodSpec]) -> list[Standing]:
        """Return where defenses stand in the track in which rows are ranked."""
        found = [s for s in self.board.study.standings if s.ranked and s.curves.task.name == self.task.name]
        there = {standing.release.label: standing for standing in found}
        return [there[spec.label] for spec in specs]


def compared(sides: Iterable[Side]) -> Iterator[dict[str, str]]:
    """Yield one line of texts for every two boards that share three defenses or more.

    A leak over samples and one over compute are shares of different things: boards of both kinds are not compared.
    """
    for first, second in combinations(sides, 2):
        pairs = shared(first.ranked, second.ranked)
        if len(pairs) < FEWEST or first.board.suite.axis != second.board.suite.axis:
            continue
        ours, theirs = zip(*pairs, strict=True)
        found = ranked_alike(uplifts(first.standings(ours)), uplifts(second.standings(theirs)))
        if not isnan(found.point):
            yield {
                "first": first.title,
                "second": second.title,
                "correlation": _told(found),
                "number": str(len(pairs)),
                "rows": listed(map(_named, pairs)),
                "tuned": listed(_named((a, b)) for a, b in pairs if a.params != b.params),
            }


def shared(first: Sequence[MethodSpec], second: Sequence[MethodSpec]) -> list[Pair]:
    """Return the defenses that two boards have both, each once: the same method with the same parameters.

    Labels may differ, and so may parameters that tuning chose on one of the boards. Where several rows of a method
    differ in those alone, the first of them stands for it.
    """
    left, found = list(second), dict[str, Pair]()
    for exact in (True, False):
        for spec in first:
            other = next((o for o in left if _same(spec, o, exact)), None)
            if other is not None and spec.label not in found:
                found[spec.label] = (spec, other)
                left.remove(other)
    return [found[spec.label] for spec in first if spec.label in found]


def _same(ours: MethodSpec, theirs: MethodSpec, exact: bool) -> bool:
    chosen = set() if exact else {name for spec in (ours, theirs) if spec.tuning for name in spec.tuning.names}
    stated = [{name: value for name, value in spec.params.items() if name not in chosen} for spec in (ours, theirs)]
    return ours.name == theirs.name and stated[0] == stated[1]


def _named(pair: Pair) -> str:
    return " / ".join(dict.fromkeys(spec.label for spec in pair))


def _told(found: Interval) -> str:
    if isnan(found.low):
        return f"{number(found.point)}, no interval under five seeds"
    return "{} [{}, {}]".format(*map(number, found))
