"""The axis of compute: what a release adds at every budget, and over their logarithm, averaged over sample counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ntbench.measure.areas import Array, mean_weights
from ntbench.measure.choice import By, Choice, choose
from ntbench.measure.curves import Curves
from ntbench.measure.gains import Gain, contributions
from ntbench.measure.intervals import UNKNOWN, Interval, mean_interval
from ntbench.measure.tracks import Pool, Run

ComputeGains = list[tuple[Array, Array]]
"""Per sample count, budgets in steps and gains [budget, seed, image] at them."""


def compute_uplift(found: ComputeGains | None) -> Interval:
    """Return the uplift over the log range of budgets, averaged over sample counts, at the budgets that all have."""
    if found is None:
        return UNKNOWN
    per_count = [np.tensordot(mean_weights(steps), gains, axes=1) for steps, gains in found]
    return mean_interval(np.mean(per_count, axis=0))


def compute_gains(curves: Curves, pool: Pool) -> ComputeGains | None:
    """Return per sample count the budgets and the attacker's gains at them.

    Budgets begin where attacker and baseline have a score at every seed that has any; None with fewer than two.
    """
    found = _ladder(curves, pool)
    if found is None:
        return None
    gains = _differences(curves, found.ours, found)
    return [(curves.end_steps[n, able], gains[able, n]) for n, able in enumerate(found.able)]


def gain_over_compute(curves: Curves, pool: Pool, by: By = "others", default: str = "") -> Gain:
    """Return the gain of the attacker at every count and budget, in the places of `gain`'s counts.

    Where the release alone has no run yet, its gain is that of the attacker. `default` is what `gain` falls back on,
    and nothing here: who chooses by its own samples has none at budgets below the horizon.
    """
    ours, alone, base = (choose(curves, runs, by) for runs in (pool.all, pool.release, pool.baseline))
    found = _ladder(curves, pool, by)
    if found is None:
        nothing = np.empty((0, 0, 0))
        return Gain(curves.counts, (), nothing, nothing, np.empty(0, dtype=bool), ours, base, alone, np.empty(0))
    attacker = _differences(curves, found.ours, found)
    release = _differences(curves, [choose(curves, pool.release, by, last=e) for e in range(len(found.ours))], found)
    taken = [~pool.released[choice.run[:, list(found.seeds)]].all(axis=1) for choice in found.ours]

    def placed(values: Array) -> Array:
        return np.concatenate([values[able, n] for n, able in enumerate(found.able)])

    weights = [mean_weights(curves.end_steps[n, able]) / len(found.able) for n, able in enumerate(found.able)]
    whole = np.where(np.isfinite(release), release, attacker)
    own_runs = np.concatenate([np.array(taken)[able, n] for n, able in enumerate(found.able)])
    gains = placed(attacker), placed(whole)
    return Gain(curves.counts, found.seeds, *gains, own_runs, ours, base, alone, np.concatenate(weights))


def restricted_over_compute(curves: Curves, runs: Sequence[Run], pool: Pool) -> float:
    """Return the uplift over compute of an attacker who has some of a row's runs and all of the baseline's."""
    found = gain_over_compute(curves, Pool(tuple(runs), pool.baseline))
    return float(np.tensordot(found.weights, found.attacker, axes=1).mean()) if found.known else np.nan


class _Ladder(NamedTuple):
    """Choices of attacker and baseline by end, the seeds that count, and which ends [count, end] all of them have."""

    ours: list[Choice]
    base: list[Choice]
    seeds: tuple[int, ...]
    able: list[NDArray[np.bool_]]


def _ladder(curves: Curves, pool: Pool, by: By = "others") -> _Ladder | None:
    ours, base = (_climbed(curves, runs, by) for runs in (pool.all, pool.baseline))
    whole = np.isfinite([c.score for c in ours]) & np.isfinite([c.score for c in base])
    # Of a release that nobody could attack nothing is known, though the attacker would have started anew.
    released = np.isfinite(choose(curves, pool.release, by).score)
    seeds = [int(s) for s in np.flatnonzero((whole[-1] & released).all(axis=0))]
    able = [whole[:, n][:, seeds].all(axis=1) & np.isfinite(curves.end_steps[n]) for n in range(len(curves.counts))]
    if not seeds or any(there.sum() < 2 for there in able):
        return None
    return _Ladder(ours, base, tuple(seeds), able)


def _climbed(curves: Curves, runs: Sequence[Run], by: By) -> list[Choice]:
    return [choose(curves, runs, by, last=e) for e in range(curves.grid.val.shape[-1])]


def _differences(curves: Curves, ours: Sequence[Choice], found: _Ladder) -> Array:
    """Return gains [end, count, seed, image]."""
    pairs = zip(ours, found.base, strict=True)
    return np.array(
        [np.subtract(*(contributions(curves, choice, curves.grid, found.seeds) for choice in pair)) for pair in pairs]
    )
