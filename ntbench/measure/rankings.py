"""How well two boards agree on the order of the defenses that both have: a rank correlation of their leaks.

The leaks of one board are uplifts over that of its unprotected release, so that uplifts stand in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from ntbench.measure.areas import Array
from ntbench.measure.gains import Gain
from ntbench.measure.intervals import LEVEL, SEEDS_FOR_AN_INTERVAL, UNKNOWN, Interval
from ntbench.measure.standing import Standing

FEWEST = 3
"""Shared rows from which on orders are compared."""
DRAWS = 2000
DECIMALS = 9
"""Uplifts that agree so far are equal, whatever order their sums were taken in."""


def uplifts(standings: Sequence[Standing]) -> Array:
    """Return the uplift of rows of one track on the suite's axis, [row, seed], at the seeds that all of them have."""
    gains = [standing.judging for standing in standings]
    seeds = sorted(set.intersection(*({*gain.seeds} for gain in gains)))
    return np.array([_by_seed(gain, seeds) for gain in gains])


def _by_seed(gain: Gain, seeds: Sequence[int]) -> Array:
    return np.asarray(np.tensordot(gain.weights, gain.at(seeds)[0], axes=1).mean(axis=1))


def ranked_alike(first: Array, second: Array, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Return Spearman's correlation of the mean uplifts of the same rows on two boards, each given as [row, seed].

    Its ends are those of draws of either board's means from their multivariate t distribution over seeds, which stands
    for the few seeds as the intervals of single rows do; rows and images stay as they are. They are unknown under five
    seeds, and all is for fewer than three rows, and where a board itself has no order.
    """
    sides = (first, second)
    least = min(side.shape[1] for side in sides)
    if len(first) < FEWEST or not least:
        return UNKNOWN
    point = float(_spearman(*(side.mean(axis=1)[None] for side in sides))[0])
    if np.isnan(point) or least < SEEDS_FOR_AN_INTERVAL:
        return Interval(point, np.nan, np.nan)
    random = np.random.default_rng(seed)
    found = _spearman(*(_means(side, draws, random) for side in sides))
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(point, min(point, float(low)), max(point, float(high)))


def _means(values: Array, draws: int, random: np.random.Generator) -> Array:
    """Return draws of the mean over seeds of values [row, seed], as [draw, row]; rows that are equal stay so."""
    seeds, mean = values.shape[1], values.mean(axis=1)
    normal = random.standard_normal((draws, seeds)) @ (values.T - mean) / np.sqrt(seeds * (seeds - 1))
    return np.asarray(mean + normal / np.sqrt(random.chisquare(seeds - 1, (draws, 1)) / (seeds - 1)))


def _spearman(first: Array, second: Array) -> Array:
    """Return the correlation of the ranks of two arrays [draw, row] by draw, NaN where one of them has no order."""
    a, b = (rankdata(x.round(DECIMALS), axis=1) - (x.shape[1] + 1) / 2 for x in (first, second))
    with np.errstate(invalid="ignore"):
        return np.asarray((a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1)))
