"""How well two boards agree on the order of the defenses that both have: a rank correlation of their leaks.

The leaks of one board are uplifts over that of its unprotected release, so that uplifts stand in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
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

    Its ends are those of a bootstrap that draws the seeds of both boards anew, while rows and images stay as they are;
    unknown under five seeds. A draw in which a board has no order, since all of its rows leak alike, counts as 0. All
    is unknown for fewer than three rows, and where a board itself has no order.
    """
    sides = (first, second)
    least = min(side.shape[1] for side in sides)
    if len(first) < FEWEST or not least:
        return UNKNOWN
    point = float(_spearman(*(_means(side, np.arange(side.shape[1])[None]) for side in sides))[0])
    if np.isnan(point) or least < SEEDS_FOR_AN_INTERVAL:
        return Interval(point, np.nan, np.nan)
    random = np.random.default_rng(seed)
    drawn = [_means(side, random.integers(0, side.shape[1], size=(draws, side.shape[1]))) for side in sides]
    low, high = np.quantile(np.nan_to_num(_spearman(*drawn)), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(point, min(point, float(low)), max(point, float(high)))


def _means(values: Array, seeds: NDArray[np.int64]) -> Array:
    """Return the mean of values [row, seed] over every draw of seeds [draw, seed], as [draw, row]."""
    return np.asarray(values[:, seeds].mean(axis=2).T.round(DECIMALS))


def _spearman(first: Array, second: Array) -> Array:
    """Return the correlation of the ranks of two arrays [draw, row] by draw, NaN where one of them has no order."""
    a, b = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (rankdata(x, axis=1) for x in (first, second)))
    with np.errstate(invalid="ignore"):
        return np.asarray((a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1)))
