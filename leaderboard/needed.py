"""Of which runs a board needs to know which images were right: those that attackers choose, and those of the papers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from ntbench.measure.areas import Array
from ntbench.measure.choice import Choice, choose
from ntbench.measure.collect import collect
from ntbench.measure.costs import Crossings
from ntbench.measure.curves import Curves, Grid
from ntbench.measure.paper import claim
from ntbench.measure.standing import Field, Standing
from ntbench.measure.tracks import tracks_of
from ntbench.suite import Suite
from ntbench.types import Knowledge, Result

Place = tuple[Knowledge, tuple[int, ...]]
Run = tuple[Any, ...]
"""A cell's coordinates and a budget in steps."""


@dataclasses.dataclass(frozen=True, eq=False)
class Traced(Curves):
    """Curves that remember which runs they were asked for."""

    asked: set[Place] = dataclasses.field(default_factory=set)

    def right(self, grid: Grid, place: tuple[int, ...]) -> Array:
        """Return what each image adds to a run's score."""
        self.asked.add(("own" if grid is self.own else "others", tuple(map(int, place))))
        return super().right(grid, place)


def needed_runs(results: Iterable[Result], suite: Suite) -> set[Run]:
    """Return the runs whose images some number of a board rests on."""
    return {run for curves in collect(results, suite) for run in _asked(_traced(curves), suite)}


def _traced(curves: Curves) -> Traced:
    return Traced(**{field.name: getattr(curves, field.name) for field in dataclasses.fields(curves)})


def _asked(curves: Traced, suite: Suite) -> Iterator[Run]:
    crossings = Crossings(curves)
    for track in tracks_of(curves):
        for standing in Field(curves, track, suite, crossings).standings:
            _work_out(standing, suite)
            curves.asked.update(_alone(standing))
    for knowledge, (release, attack, count, seed, end) in curves.asked:
        faced = curves.attacks[attack]
        place = (curves.task.name, curves.releases[release].label, faced.label, faced.mask)
        where = (curves.counts[count], curves.seeds[seed], knowledge)
        yield ((*place, *where), int(curves.end_steps[count, end]))


def _work_out(standing: Standing, suite: Suite) -> None:
    _ = standing.uplift, standing.leak, standing.compute, standing.over_scratch
    standing.by("oracle")
    standing.by("own")
    claim(standing.curves, standing.row.release, suite)


def _alone(standing: Standing) -> Iterator[Place]:
    # Whatever baseline stands beside it later, these are the runs that an attacker would take of the release.
    curves = standing.curves
    for last in range(curves.grid.val.shape[-1]):
        yield from (("others", place) for place in _places(choose(curves, standing.pool.release, last=last)))


def _places(choice: Choice) -> Iterator[tuple[int, ...]]:
    for n, s in zip(*(choice.run >= 0).nonzero(), strict=True):
        place = choice.place(int(n), int(s))
        if place is not None:
            yield tuple(map(int, place))
