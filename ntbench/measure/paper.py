"""A row as its paper would report it: one attack on the release against the same attack from scratch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ntbench.measure.areas import trapezoid_weights
from ntbench.measure.choice import Choice, final
from ntbench.measure.costs import NO_RATIO, Ratio, Spent, compare, horizon_costs, reach
from ntbench.measure.curves import COSTS, Curves
from ntbench.measure.gains import contributions, weighted
from ntbench.measure.intervals import UNKNOWN, Interval
from ntbench.measure.tracks import Run, matching
from ntbench.suite import Suite

QUANTILE = 0.9
"""The share of what the paper's own scratch reaches that its overhead is read at."""


@dataclass(frozen=True, eq=False)
class Claim:
    """The paper's attack, and SLC-AUC and overhead in steps against scratch under it, or as the paper trains it."""

    attack: str
    mask: str
    slc: Interval = UNKNOWN
    overhead: Ratio = NO_RATIO
    ours: Choice | None = None
    theirs: Choice | None = None


def claim(curves: Curves, release: int, suite: Suite) -> Claim:
    """Return a release under the attack that its paper evaluates with, unknown where either run lacks."""
    setting = suite.paper_setting(curves.releases[release].label)
    a, scratch = curves.find(setting.attack, setting.mask), curves.named("scratch")
    own = curves.find(setting.scratch, "dense") if setting.scratch else a
    if a is None or own is None or scratch is None:
        return Claim(setting.attack, setting.mask)
    if not (curves.faced[release, a] or curves.releases[release].baseline):
        return Claim(setting.attack, setting.mask)
    base, ours = matching(curves, scratch, [own]), matching(curves, release, [a])
    if not (base and ours):
        return Claim(setting.attack, setting.mask)
    pair = final(curves, ours[0]), final(curves, base[0])
    return Claim(setting.attack, setting.mask, _area(curves, *pair), _overhead(curves, ours[0], base[0]), *pair)


def _area(curves: Curves, ours: Choice, theirs: Choice) -> Interval:
    whole = np.isfinite(ours.score + theirs.score).all(axis=0)
    seeds = [int(s) for s in np.flatnonzero(whole)]
    if not seeds or len(curves.counts) < 2:
        return UNKNOWN
    gains = [contributions(curves, choice, curves.grid, seeds) for choice in (ours, theirs)]
    return weighted(gains[0] - gains[1], trapezoid_weights(curves.counts))


def _overhead(curves: Curves, ours: Run, theirs: Run) -> Ratio:
    there = np.isfinite(final(curves, theirs).score)
    reached = np.where(there, final(curves, theirs).score, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    goal = QUANTILE * np.where(there.any(axis=1), reached, np.nan)
    mine, base = (_spent(curves, run, goal) for run in (ours, theirs))
    return compare(mine, base, base, curves.counts)


def _spent(curves: Curves, run: Run, goal: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Spent:
    cost, k = curves.grid.cost[(slice(None), *run)], COSTS.index("steps")
    found = reach(curves.grid.test[run], cost, goal, curves.end_steps)
    return Spent(found[k], horizon_costs(cost, curves.end_steps)[k])
