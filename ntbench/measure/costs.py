"""Costs to a goal: when a run first gets there, which run is the cheapest, and how attacker and baseline compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ntbench.measure.areas import Array
from ntbench.measure.choice import TOLERANCE, mixtures, others_mean
from ntbench.measure.curves import COSTS, Curves
from ntbench.measure.intervals import SEEDS_FOR_AN_INTERVAL, UNKNOWN, Interval, t_interval
from ntbench.measure.tracks import Run, Runs

QUANTILES = (50, 80, 90, 95)
"""Goals in percent of the baseline's plateau."""
HEADLINE = ("steps", 90)
CENSORED = 2.0
"""How many horizons a run that never got there is taken to cost, where attackers compare what to run."""


@dataclass(frozen=True, eq=False)
class Spent:
    """What the chosen runs [count, seed] cost to the goal, infinite where they did not reach it by `limit`."""

    cost: Array
    limit: Array

    @cached_property
    def medians(self) -> Array:
        """Return the Kaplan-Meier median [count] over the seeds that have a run."""
        return np.array([survival_median(c, limit) for c, limit in zip(self.cost, self.limit, strict=True)])

    def mixed(self, other: Spent, where: NDArray[np.bool_]) -> Spent:
        """Return these costs with those of another choice at some counts [count]."""
        return Spent(*(np.where(where[:, None], b, a) for a, b in ((self.cost, other.cost), (self.limit, other.limit))))

    @property
    def counted(self) -> Array:
        """Return costs in which a run that did not get there counts at its horizon."""
        return np.where(np.isinf(self.cost), self.limit, self.cost)


@dataclass(frozen=True)
class Ratio:
    """One cost over another, a geometric mean over counts.

    `bound` is `>` or `<` where a median was cut off, so that the ratio is a lower or an upper bound; empty otherwise.
    `counts` are the sample counts that it rests on, those at which the baseline or the attacker reached the goal.
    """

    interval: Interval
    bound: str
    counts: tuple[int, ...]


NO_RATIO = Ratio(UNKNOWN, "", ())


class Crossings:
    """When the runs of a task reach some percent of the baseline's plateau.

    Attackers expect what validation scores of other seeds say, of every run; what they spend is read on test data, of
    the runs that they take and of no others.
    """

    def __init__(self, curves: Curves) -> None:
        """Keep the curves; what is expected is found once a goal."""
        self.curves = curves
        self._expected: dict[int, Array] = {}
        self._spent: dict[tuple[Runs, str, int], Spent] = {}

    @cached_property
    def limits(self) -> Array:
        """Return what each run would have cost at the horizon [cost, release, attack, count, seed]."""
        return horizon_costs(self.curves.grid.cost, self.curves.end_steps)

    def expected(self, quantile: int) -> Array:
        """Return the log of costs [cost, release, attack, count, seed] to a goal, infinite where nobody can choose."""
        if quantile not in self._expected:
            grid, goal = self.curves.grid, self._goal(quantile)
            found = np.empty(grid.cost.shape[:-1])
            for r, val in enumerate(grid.val):
                logs = _foreseen(reach(val, grid.cost[:, r], goal, self.curves.end_steps), self.limits[:, r])
                able = np.isfinite(logs) & np.isfinite(grid.test[r]).any(axis=-1)
                found[:, r] = np.where(able, logs, np.inf)
            self._expected[quantile] = found
        return self._expected[quantile]

    def _goal(self, quantile: int) -> Array:
        return quantile / 100 * plateaus(self.curves)

    def spent(self, runs: Sequence[Run], cost: str, quantile: int) -> Spent:
        """Return what the rational attacker's cheapest runs cost: chosen on other seeds' validation, read on test."""
        key = (Runs.of(runs), cost, quantile)
        if key not in self._spent:
            self._spent[key] = self._cheapest(*key)
        return self._spent[key]

    def _cheapest(self, runs: Runs, cost: str, quantile: int) -> Spent:
        if not runs:
            nothing = np.full((len(self.curves.counts), len(self.curves.seeds)), np.nan)
            return Spent(nothing, nothing)
        grid, k, (r, a) = self.curves.grid, COSTS.index(cost), runs.at
        expected = self.expected(quantile)[k, r, a]
        best = expected.min(axis=0)
        pick = (expected <= best + TOLERANCE).argmax(axis=0)
        place = (r[pick], a[pick], *np.indices(pick.shape))
        cost_of = grid.cost[k][place][None]
        found = reach(grid.test[place], cost_of, self._goal(quantile), self.curves.end_steps)[0]
        there = np.isfinite(best)
        return Spent(*(np.where(there, held, np.nan) for held in (found, self.limits[k][place])))


def plateaus(curves: Curves) -> Array:
    """Return the frozen plateau [count] of the baseline, NaN where the suite has none."""
    frozen = {level.samples: level.plateau for level in curves.task.levels}
    return np.array([frozen.get(count) for count in curves.counts], dtype=np.float64)


def reach(score: Array, cost: Array, goal: ArrayLike, steps: Array) -> Array:
    """Return the costs [cost, ..., count, seed] at which scores [..., count, seed, end] first reach goals [count].

    Between budgets [count, end] a factor of at most 2 apart, costs are interpolated in their logarithm, linearly in
    the score; otherwise the first budget at or above the goal counts. Infinite where no budget does, NaN without any
    score or goal.
    """
    target = np.asarray(goal, dtype=np.float64)[:, None]
    with np.errstate(invalid="ignore"):
        hit = score >= target[..., None] - TOLERANCE
    first = hit.argmax(axis=-1)
    at, before = _places(first, score), _places(np.maximum(first - 1, 0), score)
    low, high = score.take(before), score.take(at)
    near = _near(steps)[np.arange(len(steps))[:, None], first]
    between = (first > 0) & np.isfinite(low) & near
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(between, np.clip((target - low) / (high - low), 0, 1), 1.0)
    c0, c1 = (_at(cost, place) for place in (before, at))
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = np.where(c0 > 0, c0 * (c1 / c0) ** share, c1)
    found = np.where(hit.any(axis=-1), np.where(between, inside, c1), np.inf)
    return np.where(np.isfinite(score).any(axis=-1) & np.isfinite(target), found, np.nan)


def _places(end: NDArray[np.intp], score: NDArray[Any]) -> NDArray[np.intp]:
    # Where an end [...] of each run stands among all numbers of scores [..., end].
    return np.asarray(np.arange(end.size).reshape(end.shape) * score.shape[-1] + end)


def _at(cost: Array, place: NDArray[np.intp]) -> Array:
    # Costs [cost, ...] of one end a run, by its place.
    return cost.reshape(len(cost), -1).take(place, axis=1)


def _near(steps: Array) -> NDArray[np.bool_]:
    # Whether each budget is at most twice the one before it, but for the rounding of steps.
    before = np.concatenate([np.full((len(steps), 1), np.nan), steps[:, :-1]], axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(steps - 0.5 <= 2 * (before + 0.5))


def horizon_costs(cost: Array, steps: Array) -> Array:
    """Return costs [cost, ..., count, seed, end] at the horizon; a run that ended before is taken to go on alike."""
    there = np.isfinite(cost[0])
    last = there.shape[-1] - 1 - there[..., ::-1].argmax(axis=-1)
    held = _at(cost, _places(last, there))
    return np.asarray(held * (steps[:, -1:] / held[0]))


def _foreseen(cost: Array, limit: Array) -> Array:
    """Return the mean log of costs [..., seed] over the other seeds, of a run that never got there beyond its limit."""
    with np.errstate(divide="ignore"):
        logs = np.log(np.where(np.isinf(cost), CENSORED * limit, cost))
    return others_mean(logs[..., None])[..., 0]


def survival_median(cost: ArrayLike, limit: ArrayLike) -> float:
    """Return the Kaplan-Meier median of costs that are infinite where they were cut off at their limit.

    It is infinite where half of the runs or more never got there, and NaN where there is no run.
    """
    costs, limits = np.asarray(cost, dtype=np.float64), np.asarray(limit, dtype=np.float64)
    held = ~np.isnan(costs)
    costs, limits = costs[held], limits[held]
    got = np.isfinite(costs)
    if not costs.size:
        return np.nan
    if got.all() or not got.any() or limits[~got].min() >= costs[got].max():
        # Cut off behind all that got there: the survival curve falls by equal steps.
        return float(np.sort(costs)[(len(costs) - 1) // 2])
    # It takes a second to import, and hardly any board needs it.
    from scipy.stats import CensoredData, ecdf

    curve = ecdf(CensoredData(uncensored=costs[got], right=limits[~got])).sf
    below = curve.probabilities <= 0.5 + TOLERANCE
    reached = below & np.isin(curve.quantiles, costs[got])
    return float(curve.quantiles[reached.argmax()]) if reached.any() else np.inf


def compare(above: Spent, below: Spent, baseline: Spent, counts: Sequence[int]) -> Ratio:
    """Return one cost over another at the counts where the baseline or the divisor reaches the goal, paired by seed.

    Medians over seeds at each count, their geometric mean over counts; the interval is Student's of the logarithms,
    averaged over counts at each seed. A median that was cut off counts at the horizon, and makes the ratio a bound: one
    of the first cost leaves it without an upper end, one of each without an interval.
    """
    reached = np.isfinite(baseline.medians) | np.isfinite(below.medians)
    able = reached & ~np.isnan(baseline.medians) & ~np.isnan(above.medians) & ~np.isnan(below.medians)
    if not able.any():
        return NO_RATIO
    medians = [_medians(side)[able] for side in (above, below)]
    point = float(np.exp(np.mean(np.log(medians[0] / medians[1]))))
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(above.counted / below.counted)[able]
    whole = logs[:, np.isfinite(logs).all(axis=0)].mean(axis=0)
    cut = [bool(np.isinf(side.medians[able]).any()) for side in (above, below)]
    bound = "" if all(cut) else ">" if cut[0] else "<" if cut[1] else ""
    held = tuple(count for count, good in zip(counts, able, strict=True) if good)
    if all(cut) or not whole.size:
        return Ratio(Interval(point, np.nan, np.nan), bound, held)
    ends = t_interval(whole)
    high = np.inf if cut[0] else max(point, float(np.exp(ends.high)))
    return Ratio(Interval(point, min(point, float(np.exp(ends.low))), high), bound, held)


def cautious(found: Ratio, attacker: Spent, alone: Spent, baseline: Spent, counts: Sequence[int]) -> Ratio:
    """Return a speed-up whose upper end holds for an attacker as well who takes the release where this one did not.

    Who took the baseline has a ratio of exactly 1, without any spread, although another draw of seeds might have made
    him take the release: the upper end is the largest over all mixtures of both at the counts where that happened.
    """
    if attacker.cost.shape[1] < SEEDS_FOR_AN_INTERVAL or np.isnan(found.interval.high):
        return found
    taken = (attacker.cost == baseline.cost).any(axis=1) & ~np.isnan(alone.medians)
    others = [compare(baseline, attacker.mixed(alone, where), baseline, counts) for where in mixtures(taken)]
    high = max([found.interval.high, *(o.interval.high for o in others if not np.isnan(o.interval.high))])
    return replace(found, interval=found.interval._replace(high=high))


def _medians(side: Spent) -> Array:
    limit = np.where(np.isnan(side.limit), 0.0, side.limit).max(axis=1)
    return np.where(np.isinf(side.medians), limit, side.medians)
