"""The rational attacker: which run it takes, at every sample count, seed and budget, and what that run reaches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ntbench.measure.areas import Array
from ntbench.measure.curves import Curves, Grid
from ntbench.measure.tracks import Run, Runs

TOLERANCE = 1e-9
"""Far below one image of any data set: sums of the same numbers in another order are equal."""
MOST_SUBSETS = 8
"""The most counts of which every subset is tried; beyond, all of them at once are."""
By = Literal["others", "oracle", "own"]
"""What is chosen by: others' validation images, the test images, or a part of the attacker's own samples."""


@dataclass(frozen=True, eq=False)
class Choice:
    """The run that is chosen [count, seed], as its place among the runs, -1 for none, and the budget that it ends at.

    `score` [count, seed] is its test score.
    """

    runs: tuple[Run, ...]
    run: NDArray[np.intp]
    end: NDArray[np.intp]
    score: Array

    def place(self, count: int, seed: int) -> tuple[int, int, int, int, int] | None:
        """Return where in the grid the chosen run stands, None where there is nothing to choose."""
        k = int(self.run[count, seed])
        return None if k < 0 else (*self.runs[k], count, seed, int(self.end[count, seed]))

    def of(self, release: int) -> NDArray[np.bool_]:
        """Return where [count, seed] a run on a release is chosen."""
        return np.asarray(np.append(Runs.of(self.runs).at[0] == release, False)[self.run], dtype=bool)


def others_mean(values: Array) -> Array:
    """Return for each seed the mean over the other seeds that have a number; a single seed has its own alone.

    `values` are [..., seed, end].
    """
    if values.shape[-2] == 1:
        return values
    there = np.isfinite(values)
    total = np.where(there, values, 0.0)
    rest: Array = np.subtract(total.sum(axis=-2, keepdims=True), total, out=total)
    number = there.sum(axis=-2, keepdims=True, dtype=np.int32) - there
    with np.errstate(invalid="ignore"):
        # Nothing of nobody is no number.
        rest /= number
    return rest


def choose(curves: Curves, runs: Sequence[Run], by: By = "others", last: int | None = None) -> Choice:
    """Choose among runs at every budget up to the end `last`, the horizon by default.

    A run that failed at a seed keeps its latest end before; one that has nothing there leaves the place to the next
    best. The first of equals is taken: in list order, then by the smaller budget.
    """
    grid = curves.own if by == "own" else curves.grid
    shape = (len(curves.counts), len(curves.seeds))
    if grid is None or not runs:
        return Choice(tuple(runs), np.full(shape, -1), np.full(shape, -1), np.full(shape, np.nan))
    return rated(grid, by).best(runs, grid.val.shape[-1] if last is None else last + 1)


def final(curves: Curves, run: Run, by: By = "others") -> Choice:
    """Return a single run at the largest budget that it has, as a choice that nobody makes."""
    grid = curves.own if by == "own" and curves.own is not None else curves.grid
    test = grid.test[run][None, None]
    rising = np.broadcast_to(np.arange(test.shape[-1], dtype=np.float64), test.shape)
    return replace(Rated(rising, test).best(((0, 0),), test.shape[-1]), runs=(run,))


def alone(curves: Curves, runs: Runs) -> Array:
    """Return what each of some runs reaches [run, count, seed] for an attacker who has no other, NaN for nothing."""
    climbed = rated(curves.grid).climbed[(slice(None), *runs.at)]
    least = climbed[-1] - TOLERANCE
    _, reached = _held(curves.grid.test[runs.at], (climbed >= least).argmax(axis=0))
    return np.where(np.isfinite(least), reached, np.nan)


def with_default(curves: Curves, choice: Choice, default: str) -> Choice:
    """Fill a choice by own samples, where these were too few to choose by, with the default attack at its horizon."""
    runs = [run for run in choice.runs if curves.attacks[run[1]].label == default]
    if curves.own is None or not runs:
        return choice
    filled = final(curves, runs[0], "own")
    empty = (choice.run < 0) & (filled.run >= 0)
    return Choice(
        choice.runs,
        np.where(empty, choice.runs.index(runs[0]), choice.run),
        np.where(empty, filled.end, choice.end),
        np.where(empty, filled.score, choice.score),
    )


def latest(test: Array) -> NDArray[np.intp]:
    """Return for each end the latest one up to it at which a run has a test score, -1 for none."""
    ends = np.arange(test.shape[-1])
    return np.maximum.accumulate(np.where(np.isfinite(test), ends, -1), axis=-1)


def _held(test: Array, end: NDArray[np.intp]) -> tuple[NDArray[np.intp], Array]:
    """Return the latest ends up to some [...] at which runs have a test score [..., end], and these scores."""
    last = np.take_along_axis(latest(test), end[..., None], axis=-1)
    return last[..., 0], np.take_along_axis(test, last, axis=-1)[..., 0]


class Rated:
    """What all runs of a grid [release, attack, count, seed, end] are rated at, so that choices need no more of it.

    `climbed` [end, release, attack, count, seed] is the best score up to each end of those that are chosen by, -inf
    where there is nothing to take: what is read of one budget lies side by side.
    """

    def __init__(self, scores: Iterable[Array], test: Array) -> None:
        """Take what is chosen by, release by release, and what all of it reaches."""
        self.test, self.climbed = test, np.empty((test.shape[-1], *test.shape[:-1]))
        for r, score in enumerate(scores):
            usable = np.where((latest(test[r]) >= 0) & np.isfinite(score), score, -np.inf)
            np.maximum.accumulate(np.moveaxis(usable, -1, 0), axis=0, out=self.climbed[:, r])
        self._best: dict[tuple[Runs, int], Choice] = {}

    def best(self, runs: Sequence[Run], stop: int) -> Choice:
        """Choose among runs with less than `stop` ends: the first of the best in list order, then by its end.

        What is chosen among `Runs` is kept, since whoever makes them chooses among them again.
        """
        if not isinstance(runs, Runs):
            return self._chosen(Runs(runs), stop)
        if (runs, stop) not in self._best:
            self._best[runs, stop] = self._chosen(runs, stop)
        return self._best[runs, stop]

    def _chosen(self, runs: Runs, stop: int) -> Choice:
        r, a = runs.at
        reached = self.climbed[stop - 1, r, a]
        least = reached.max(axis=0) - TOLERANCE
        run = (reached >= least).argmax(axis=0)
        place = (r[run], a[run], *np.indices(run.shape))
        # Scores that climb pass one that is good enough where the scores themselves do.
        end = (self.climbed[(slice(stop), *place)] >= least).argmax(axis=0)
        end, score = _held(self.test[place], end)
        there = np.isfinite(least)
        return Choice(runs, np.where(there, run, -1), np.where(there, end, -1), np.where(there, score, np.nan))


def mixtures(taken: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Return where [count] the release might have been taken instead: the subsets of where the baseline was."""
    places = np.flatnonzero(taken)
    sizes = range(1, len(places) + 1) if len(places) <= MOST_SUBSETS else [len(places)]
    subsets = chain.from_iterable(combinations(places.tolist(), size) for size in sizes)
    return [np.isin(np.arange(len(taken)), subset) for subset in subsets]


_RATED: WeakKeyDictionary[Grid, dict[By, Rated]] = WeakKeyDictionary()


def rated(grid: Grid, by: By = "others") -> Rated:
    """Return what the runs of a grid are rated at, worked out once."""
    held = _RATED.setdefault(grid, {})
    if by not in held:
        told = {"others": map(others_mean, grid.val), "oracle": grid.test, "own": grid.own}
        held[by] = Rated(told[by], grid.test)
    return held[by]
