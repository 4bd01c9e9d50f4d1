"""The metrics on plain arrays, for curves that were measured elsewhere; importing them costs no torch.

Scores are fractions, one for each sample count [n], or one for each count and seed [n, s].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ntbench.measure.areas import Array, mean_weights, slc_auc
from ntbench.measure.costs import Ratio, Spent, compare, reach
from ntbench.measure.intervals import Interval, moments, t_interval

__all__ = ["leak", "overhead", "slc_auc", "speedup", "uplift"]


def uplift(samples: ArrayLike, attacker: ArrayLike, baseline: ArrayLike) -> Interval:
    """Return what a release adds for an attacker: SLC-AUC over the log range of the counts, mean accuracy.

    The attacker is the rational one only if its scores already are the better of its own and the baseline's. The
    interval is Student's over seeds, and the range of the seeds where there are fewer than five. Raises ValueError
    where shapes do not fit.
    """
    weights = mean_weights(samples)
    gains = _by_seed(attacker, weights) - _by_seed(baseline, weights)
    return t_interval(weights @ gains)


def leak(samples: ArrayLike, attacker: ArrayLike, unprotected: ArrayLike, baseline: ArrayLike) -> Interval:
    """Return the uplift of a protected release over that of the unprotected one, paired by seed.

    0: nothing is left, 1: no protection. The interval is Fieller's over seeds, and the range of the seeds where there
    are fewer than five; all NaN unless the unprotected uplift lies above 0. Raises ValueError where shapes do not fit.
    """
    weights = mean_weights(samples)
    base = _by_seed(baseline, weights)
    gains = [weights @ (_by_seed(scores, weights) - base) for scores in (attacker, unprotected)]
    return moments(np.stack(gains)[:, :, None]).ratio([1.0, 0.0], [0.0, 1.0])


def overhead(
    steps: ArrayLike, release: ArrayLike, baseline: ArrayLike, quantile: float = 0.9, plateau: float | None = None
) -> Ratio:
    """Return the steps from a release to a goal over those of the baseline: above 1 the release holds attackers up.

    Scores [b] or [seeds, b] are those of runs at each of the rising budgets in steps [b]. The goal is a share
    `quantile` of the plateau: of what the baseline reaches at the last budget, a mean over seeds, unless a number
    measured on other seeds is given. Crossings are interpolated in the log of steps between budgets at most a factor
    of 2 apart; medians over seeds are Kaplan-Meier's, and `bound` says that one of them never got there. Raises
    ValueError where shapes do not fit.
    """
    ours, theirs = (_at_budgets(scores, steps) for scores in (release, baseline))
    goal = quantile * (float(theirs[:, -1].mean()) if plateau is None else plateau)
    spent = _spent(ours, steps, goal), _spent(theirs, steps, goal)
    return compare(*spent, spent[1], (0,))


def speedup(
    steps: ArrayLike, release: ArrayLike, baseline: ArrayLike, quantile: float = 0.9, plateau: float | None = None
) -> Ratio:
    """Return the baseline's steps to a goal over those from a release: 1 over `overhead`, with the same arguments."""
    found = overhead(steps, release, baseline, quantile, plateau)
    point, low, high = found.interval
    return Ratio(Interval(1 / point, 1 / high, 1 / low), {">": "<", "<": ">"}.get(found.bound, ""), found.counts)


def _by_seed(scores: ArrayLike, weights: Array) -> Array:
    found = np.asarray(scores, dtype=np.float64)
    found = found[:, None] if found.ndim == 1 else found
    if found.ndim != 2 or len(found) != len(weights):
        raise ValueError(f"scores {np.shape(scores)} need one row for each of the {len(weights)} sample counts")
    return found


def _at_budgets(scores: ArrayLike, steps: ArrayLike) -> Array:
    found = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if found.ndim != 2 or found.shape[1] != np.size(steps):
        raise ValueError(f"scores {np.shape(scores)} need one column for each of the {np.size(steps)} budgets")
    return found


def _spent(scores: Array, steps: ArrayLike, goal: float) -> Spent:
    """Return what runs [seeds, b] cost to a goal, as those of a single sample count."""
    budgets = np.asarray(steps, dtype=np.float64)
    paid = np.broadcast_to(budgets, (1, 1, *scores.shape))
    found = reach(scores[None], paid, [goal], budgets[None])[0]
    return Spent(found, np.full(found.shape, budgets[-1]))
