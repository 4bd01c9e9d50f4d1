"""What a release adds for the rational attacker: gains over the baseline, per sample count, seed and test image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ntbench.measure.areas import Array, mean_weights, trapezoid_weights
from ntbench.measure.choice import By, Choice, choose, mixtures, with_default
from ntbench.measure.curves import Curves, Grid
from ntbench.measure.intervals import SEEDS_FOR_AN_INTERVAL, UNKNOWN, Interval, mean_interval, moments
from ntbench.measure.tracks import Pool


@dataclass(frozen=True, eq=False)
class Gain:
    """Gains [count, seed, image] over the baseline: of the attacker, who may take its runs, and of the release alone.

    On the axis of compute there is a place for each count and budget in place of each count, and `over` holds the
    weights of these places in the uplift. `seeds` are those at which attacker, release and baseline all have a score at
    every count; only these are held. `taken` says at which counts the attacker took the baseline's own run at any of
    them.
    """

    counts: tuple[int, ...]
    seeds: tuple[int, ...]
    attacker: Array
    alone: Array
    taken: NDArray[np.bool_]
    choice: Choice
    baseline: Choice
    own: Choice
    over: Array | None = None

    @property
    def known(self) -> bool:
        """Return whether an area can be formed: two counts or budgets or more, at one seed or more."""
        return (len(self.counts) > 1 if self.over is None else bool(self.over.size)) and bool(self.seeds)

    @property
    def weights(self) -> Array:
        """Return the weights of the places in the uplift, which sum to 1."""
        return mean_weights(self.counts) if self.over is None else self.over

    def at(self, seeds: Sequence[int]) -> tuple[Array, Array]:
        """Return both gains at some of the seeds."""
        index = [self.seeds.index(seed) for seed in seeds]
        return self.attacker[:, index], self.alone[:, index]


def gain(curves: Curves, pool: Pool, by: By = "others", default: str = "") -> Gain:
    """Return the gain of the attacker who chooses among a pool, by others' validation scores unless told otherwise."""
    choices = [_chosen(curves, runs, by, default) for runs in (pool.all, pool.release, pool.baseline)]
    grid = curves.own if by == "own" and curves.own is not None else curves.grid
    scores = np.stack([choice.score for choice in choices])
    seeds = [int(s) for s in np.flatnonzero(np.isfinite(scores).all(axis=(0, 1)))]
    ours, alone, base = (contributions(curves, choice, grid, seeds) for choice in choices)
    taken = np.asarray(np.logical_not(pool.released[choices[0].run[:, seeds]]).any(axis=1))
    return Gain(curves.counts, tuple(seeds), ours - base, alone - base, taken, choices[0], choices[2], choices[1])


def _chosen(curves: Curves, runs: Sequence[tuple[int, int]], by: By, default: str) -> Choice:
    choice = choose(curves, runs, by)
    return with_default(curves, choice, default) if by == "own" else choice


def contributions(curves: Curves, choice: Choice, grid: Grid, seeds: Sequence[int]) -> Array:
    """Return what each image adds [count, seed, image] to the score of the chosen runs at some seeds."""
    shape = (len(curves.counts), len(seeds), max(curves.originals, 1))
    found = np.full(shape, np.nan)
    for n in range(shape[0]):
        for k, s in enumerate(seeds):
            place = choice.place(n, s)
            if place is not None:
                found[n, k] = curves.right(grid, place)
    return found


def uplift(found: Gain) -> Interval:
    """Return mean accuracy that a release adds over the log range of samples; its upper end is a cautious one."""
    if not found.known:
        return UNKNOWN
    w = found.weights
    held = moments(np.concatenate([found.attacker, found.alone]))
    plain = held.interval(np.append(w, 0 * w))
    return _widened(plain, [held.interval(v) for v in _cautious(w, found)])


def leak(found: Gain, unprotected: Gain) -> Interval:
    """Return the uplift of a release over that of the unprotected one, paired by seed and image, with Fieller's ends.

    Undefined unless the interval of the unprotected uplift lies above 0.
    """
    seeds = [s for s in found.seeds if s in unprotected.seeds]
    if not (found.known and seeds):
        return UNKNOWN
    w, base = found.weights, unprotected.weights
    none = np.append(np.zeros(2 * len(w)), base)
    held = moments(np.concatenate([*found.at(seeds), unprotected.at(seeds)[0]]))
    plain = held.ratio(np.append(w, np.zeros(len(w) + len(base))), none)
    return _widened(plain, [held.ratio(np.append(v, 0 * base), none) for v in _cautious(w, found)])


def area_alone(found: Gain) -> Interval:
    """Return SLC-AUC of the release alone, which may be below 0."""
    return weighted(found.alone, trapezoid_weights(found.counts)) if found.known else UNKNOWN


def weighted(gains: Array, weights: Array) -> Interval:
    """Return the weighted sum over counts of gains [count, seed, image] with its interval."""
    return mean_interval(np.tensordot(weights, gains, axes=1))


def _cautious(w: Array, found: Gain) -> list[Array]:
    # Where an attacker took the baseline at every seed its gain is exactly 0, without any spread, although another
    # draw of seeds might have made it take the release. The truth is at most what the best mixture of release and
    # baseline gives, so the upper end is the largest over all mixtures at the counts where the baseline was taken.
    if len(found.seeds) < SEEDS_FOR_AN_INTERVAL:
        return []
    sets = mixtures(found.taken)
    return [np.append(np.where(released, 0.0, w), np.where(released, w, 0.0)) for released in sets]


def _widened(plain: Interval, others: Sequence[Interval]) -> Interval:
    return plain._replace(high=max([plain.high, *(o.high for o in others if np.isfinite(o.high))]))
