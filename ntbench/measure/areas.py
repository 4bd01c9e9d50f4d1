"""Areas between learning curves, as weights: every area is linear in the scores, and so in each image's."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def trapezoid_weights(grid: ArrayLike) -> Array:
    """Return weights [n] whose product with scores [n] is the trapezoid area over the natural log of a grid.

    Raises ValueError unless the grid holds two or more positive values that rise strictly.
    """
    steps = np.diff(np.log(_rising(grid)))
    return np.asarray((np.append(0.0, steps) + np.append(steps, 0.0)) / 2)


def mean_weights(grid: ArrayLike) -> Array:
    """Return the trapezoid's weights over the log range of the grid, which sum to 1."""
    return trapezoid_weights(grid) / log_range(grid)


def slc_auc(samples: ArrayLike, defense: ArrayLike, baseline: ArrayLike) -> float:
    """Return SLC-AUC of raw scores on one grid of sample counts; below 0 is worse than the baseline (NTP, eq. 8)."""
    weights = trapezoid_weights(samples)
    ours, theirs = (np.asarray(curve, dtype=np.float64) for curve in (defense, baseline))
    if ours.shape != weights.shape or theirs.shape != weights.shape:
        raise ValueError(f"scores {ours.shape} and {theirs.shape} need one score per count of {weights.shape}")
    return float(weights @ (ours - theirs))


def log_range(grid: ArrayLike) -> float:
    """Return the natural log of the largest over the smallest value of a grid."""
    values = _rising(grid)
    return float(np.log(values[-1] / values[0]))


def _rising(grid: ArrayLike) -> Array:
    values = np.asarray(grid, dtype=np.float64)
    if values.ndim != 1 or values.size < 2 or not values[0] > 0 or not (np.diff(values) > 0).all():
        raise ValueError(f"grid={values.tolist()} must hold two or more positive values that rise strictly")
    return values
