"""Total compute: what a release adds against the steps of all the trials that it took to find the attack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ntbench.measure.areas import Array, mean_weights
from ntbench.measure.choice import TOLERANCE, alone, choose, rated
from ntbench.measure.curves import AUTO, Curves
from ntbench.measure.standing import Results, Standing, studied
from ntbench.measure.tracks import Pool, Run, Runs
from ntbench.suite import Suite

ORDERS = 20
SUCCESS = 0.9
"""The share of the whole grid's uplift that counts as success."""


class Search(NamedTuple):
    """What an attacker reached and paid: rising numbers of trials, their steps in all, and the uplift after them."""

    trials: Array
    steps: Array
    uplift: Array

    @property
    def last(self) -> tuple[float, float]:
        """Return uplift and steps at the end, NaN where nothing was tried."""
        return (float(self.uplift[-1]), float(self.steps[-1])) if len(self.steps) else (np.nan, np.nan)


NOTHING = Search(*(np.empty(0) for _ in range(3)))


def listed(standing: Standing) -> Search:
    """Return the grid of attacks in the suite's order, the search left out."""
    return _tried(standing, [run for run in standing.pool.release if not _searches(standing.curves, run)])


def shuffled(standing: Standing, orders: int = ORDERS) -> Search:
    """Return the grid averaged over seeded orders, which is a random search over its attacks."""
    runs = [run for run in standing.pool.release if not _searches(standing.curves, run)]
    draws = np.random.default_rng(0)
    found = [_tried(standing, [runs[k] for k in draws.permutation(len(runs))]) for _ in range(orders)]
    return Search(*(np.mean(part, axis=0) for part in zip(*found, strict=True))) if runs else NOTHING


def search(standing: Standing) -> Search:
    """Return the automatic search, which pays for everything that it tried."""
    return _tried(standing, [run for run in standing.pool.release if _searches(standing.curves, run)])


def trials_to_success(found: Search) -> float:
    """Return how many trials the grid takes to 90% of its whole uplift; NaN where it adds nothing."""
    if not len(found.uplift) or not found.uplift[-1] > 0:
        return np.nan
    return float(found.trials[int((found.uplift >= SUCCESS * found.uplift[-1] - TOLERANCE).argmax())])


def compute_table(results: Results, suite: Suite) -> pd.DataFrame:
    """Return one row per task, track, defense, mask, way to search and number of trials.

    `how` is `listed` (the grid in its order), `shuffled` (averaged over orders) or `search`; `steps` are summed over
    trials, a mean over counts and seeds; `uplift` is what the attacker who stops there has; `success` says at how many
    trials it has 90% of the uplift at the end.
    """
    rows = []
    for standing in studied(results, suite).standings:
        place = standing.place
        for how, found in (("listed", listed), ("shuffled", shuffled), ("search", search)):
            way = found(standing)
            success = trials_to_success(way)
            rows += [(*place, how, *point, success) for point in zip(*way, strict=True)]
    names = ["task", "track", "defense", "mask", "how", "trials", "steps", "uplift", "success"]
    return pd.DataFrame(rows, columns=names)


def restricted_uplift(curves: Curves, runs: Sequence[Run], pool: Pool) -> float:
    """Return the uplift of an attacker who has some of a row's runs and all of the baseline's."""
    ours = choose(curves, tuple(dict.fromkeys((*runs, *pool.baseline)))).score
    return float(_mean_uplift(curves, ours[None], choose(curves, pool.baseline).score)[0])


def _searches(curves: Curves, run: Run) -> bool:
    return curves.attacks[run[1]].name == AUTO


def _tried(standing: Standing, runs: Sequence[Run]) -> Search:
    curves, pool = standing.curves, standing.pool
    base = choose(curves, pool.baseline)
    if not runs or not pool.baseline or len(curves.counts) < 2:
        return NOTHING
    tried = Runs(runs)
    scores, steps = _running(curves, tried, pool.baseline), np.cumsum(_paid(curves, tried))
    return Search(np.arange(1.0, len(runs) + 1), steps, _mean_uplift(curves, scores, base.score))


def _paid(curves: Curves, runs: Runs) -> Array:
    # The mean [run] over counts and seeds of what is known, nothing where that is nothing.
    paid = curves.grid.paid[runs.at]
    there = np.isfinite(paid)
    return np.asarray(np.where(there, paid, 0.0).sum(axis=(1, 2)) / np.maximum(there.sum(axis=(1, 2)), 1))


def _running(curves: Curves, runs: Runs, baseline: Sequence[Run]) -> Array:
    # Test scores [trial, count, seed] of the best of the baseline's runs and of all trials so far.
    best, held = _seen(curves, baseline).max(axis=0), choose(curves, baseline).score
    seen, scores = _seen(curves, runs), alone(curves, runs)
    before = np.maximum.accumulate(np.concatenate([best[None], seen[:-1]]), axis=0)
    # All other trials leave everything as it is.
    records = np.flatnonzero((seen > before).any(axis=(1, 2)))
    found = [held]
    for k in records:
        better = seen[k] > best + TOLERANCE
        best, held = np.where(better, seen[k], best), np.where(better, scores[k], held)
        found.append(held)
    return np.array(found)[np.searchsorted(records, np.arange(len(runs)), side="right")]


def _seen(curves: Curves, runs: Sequence[Run]) -> Array:
    # What others saw of each run [run, count, seed] at its best budget.
    return np.asarray(rated(curves.grid).climbed[(-1, *Runs.of(runs).at)])


def _mean_uplift(curves: Curves, scores: Array, base: Array) -> Array:
    gains = (scores - base).transpose(0, 2, 1)
    whole = np.isfinite(gains).all(axis=(0, 2))
    if not whole.any():
        return np.full(len(scores), np.nan)
    return np.asarray((gains[:, whole] @ mean_weights(curves.counts)).mean(axis=1))
