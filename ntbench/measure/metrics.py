"""What a grid's numbers mean: areas between learning curves, overheads, worst cases and intervals, on plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

EXACT_SEEDS = 5
DRAWS = 10_000
# Far below one image of any test set: sums of the same numbers in another order are equal.
TOLERANCE = 1e-9


def learning_curve_area(samples: ArrayLike, accuracy: ArrayLike) -> float:
    """Return the trapezoid area under one learning curve over the natural log of its sample counts.

    Raises ValueError unless the counts are positive and rise strictly, and both have one finite value per count.
    """
    counts, scores = _grid(samples), np.asarray(accuracy, dtype=np.float64)
    if scores.shape != counts.shape:
        raise ValueError(f"accuracy has shape {scores.shape} and samples {counts.shape}; give one accuracy per count")
    if not np.isfinite(scores).all():
        raise ValueError(f"accuracy={scores.tolist()} holds a value that is not finite; leave failed cells out")
    return float(np.sum(np.diff(np.log(counts)) * (scores[1:] + scores[:-1]) / 2))


def slc_auc(samples: ArrayLike, defense: ArrayLike, scratch: ArrayLike) -> float:
    """Return the area between a defense's and the scratch learning curve; negative is worse than starting anew.

    Both curves stand on the one grid `samples`; raises ValueError as `learning_curve_area` does.
    """
    return learning_curve_area(samples, defense) - learning_curve_area(samples, scratch)


def normalised(area: float, samples: ArrayLike) -> float:
    """Return an area divided by the log range of its grid, which makes it a mean (difference of) accuracy."""
    return area / log_range(samples)


def log_range(samples: ArrayLike) -> float:
    """Return the natural log of the largest over the smallest sample count, which no area exceeds."""
    counts = _grid(samples)
    return float(np.log(counts[-1] / counts[0]))


def _grid(samples: ArrayLike) -> Array:
    counts = np.asarray(samples, dtype=np.float64)
    if counts.ndim != 1 or counts.size < 2:
        raise ValueError(f"samples={counts.tolist()} must be a list of at least two counts")
    if not np.isfinite(counts).all() or counts[0] <= 0 or (np.diff(counts) <= 0).any():
        raise ValueError(f"samples={counts.tolist()} must be positive, finite and rise strictly without duplicates")
    return counts


def cost_to_reach(cost: ArrayLike, accuracy: ArrayLike, threshold: float) -> Array:
    """Return the cost of the first scored point with at least the threshold's accuracy, infinite if there is none.

    Points lie on the last axis; nothing is interpolated, and a point scored before the first step costs 0.
    """
    costs, scores = np.asarray(cost, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    if costs.shape != scores.shape or costs.shape[-1] == 0:
        raise ValueError(f"cost has shape {costs.shape} and accuracy {scores.shape}; give one cost per scored point")
    return np.asarray(np.where(scores >= threshold - TOLERANCE, costs, np.inf).min(axis=-1), dtype=np.float64)


@dataclass(frozen=True)
class Overhead:
    """A cost from protected weights over the same cost from scratch.

    `value` is the median over seeds; where `censored`, the median run never got there and `value` is a lower bound.
    `share` of the seeds never got there; `restricted` is the mean that counts such seeds at their budget.
    """

    value: float
    censored: bool
    share: float
    restricted: float


def overhead(protected: ArrayLike, budget: ArrayLike, scratch: ArrayLike, floor: float) -> Overhead:
    """Compare costs over seeds, infinite where a run never reached the threshold and was stopped at its budget.

    The denominator is the median over the scratch seeds, at least `floor`, the cost of the smallest scored step;
    everything is NaN where that median is infinite, for then scratch itself does not get there.
    """
    if not floor > 0:
        raise ValueError(f"floor={floor} must be the smallest positive scored cost")
    costs, base = np.asarray(protected, dtype=np.float64), max(float(np.median(np.asarray(scratch))), floor)
    share = float(np.isinf(costs).mean())
    if np.isinf(base):
        return Overhead(np.nan, False, share, np.nan)
    spent = np.where(np.isinf(costs), np.asarray(budget, dtype=np.float64), costs) / base
    return Overhead(float(np.median(spent)), bool(np.isinf(np.median(costs))), share, float(spent.mean()))


def resamples(seeds: int, seed: int = 0) -> NDArray[np.intp]:
    """Return bootstrap indices [draws, seeds]: all of them up to five seeds, else 10000 random ones."""
    if seeds <= EXACT_SEEDS:
        return np.array(list(product(range(seeds), repeat=seeds)), dtype=np.intp)
    return np.random.default_rng(seed).integers(0, seeds, size=(DRAWS, seeds), dtype=np.intp)


def bootstrap_interval(values: ArrayLike, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean over seeds, (nan, nan) for fewer than two of them.

    Up to five seeds it is exact and needs no randomness; with two or three it spans their extremes. Raises
    ValueError for values that are not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not np.isfinite(sample).all():
        raise ValueError(f"values={sample.tolist()} must be a list of finite numbers; leave failed seeds out")
    if not 0 < level < 1:
        raise ValueError(f"level={level} must lie between 0 and 1")
    if sample.size < 2:
        return np.nan, np.nan
    means = sample[resamples(sample.size, seed)].mean(axis=1)
    # Interpolating between so few resamples would make three seeds look surer than they are.
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return float(low), float(high)


def worst_case(selection: ArrayLike, test: ArrayLike) -> tuple[NDArray[np.intp], Array]:
    """Choose per ratio the attack with the best seed mean of selection accuracy, and report its test accuracy.

    Both arrays are [attacks, ratios, seeds]; an attack with a NaN at a ratio cannot be chosen there, and the first
    of equals is. Returns the chosen indices [ratios], -1 where nothing can be chosen, and accuracies [ratios, seeds].
    """
    chooser, scores = np.asarray(selection, dtype=np.float64), np.asarray(test, dtype=np.float64)
    if chooser.ndim != 3 or chooser.shape != scores.shape:
        raise ValueError(f"selection {chooser.shape} and test {scores.shape} must both be [attacks, ratios, seeds]")
    means = chooser.mean(axis=2) + 0 * scores.mean(axis=2)
    means = np.where(np.isnan(means), -np.inf, means)
    choice = (means >= means.max(axis=0) - TOLERANCE).argmax(axis=0)
    curve = scores[choice, np.arange(choice.size)]
    missing = np.isneginf(means.max(axis=0))
    return np.where(missing, -1, choice), np.where(missing[:, None], np.nan, curve)


def intactness(before: ArrayLike, after: ArrayLike) -> Array:
    """Return the loss of source test accuracy that protection causes, per seed; raises ValueError outside [0, 1]."""
    pair = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    for values in pair:
        if ((values < 0) | (values > 1)).any():
            raise ValueError(f"accuracies {values.tolist()} must be fractions in [0, 1], not percent")
    return pair[0] - pair[1]


def protection_cost(protect: ArrayLike, pretrain: ArrayLike) -> float:
    """Return the cost of protecting over that of pretraining, summed over seeds; NaN where pretraining cost nothing."""
    spent, base = float(np.sum(np.asarray(protect))), float(np.sum(np.asarray(pretrain)))
    return spent / base if base > 0 else np.nan
