"""Intervals of means and ratios whose noise is that of seeds and of test images, crossed.

A contrast is an array [seeds, images], such as the uplift that one image sees at one seed. Seeds and images are random
effects: mean squares of the two-way layout without replication give the variance of the grand mean, as in studies of
many readers and many cases, (MS_seed + MS_image - MS_residual) / (S I), with degrees of freedom by Satterthwaite
(1946). Mean squares are quadratic forms, so that those of d - rho n follow from those of d and n: Fieller's interval
for a ratio (1954) is closed too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from ntbench.measure.areas import Array

SEEDS_FOR_AN_INTERVAL = 5
LEVEL = 0.95


class Interval(NamedTuple):
    """A point and its two ends; `of` says what they are: an interval, or the range of too few seeds."""

    point: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        """Return whether all of it lies above 0."""
        return bool(self.low > 0)


UNKNOWN = Interval(np.nan, np.nan, np.nan)


RANGE = "range"
ATTACKS_ALONE = " over attack seeds alone"


def kind_of(seeds: int, one_file: bool = False) -> str:
    """Return the name of what stands beside a mean over so many seeds, which may all attack the weights of one file."""
    return ("95%" if seeds >= SEEDS_FOR_AN_INTERVAL else RANGE) + (ATTACKS_ALONE if one_file else "")


@dataclass(frozen=True)
class Moments:
    """Means [k] and mean squares [k, k] of k contrasts over the same seeds and images."""

    mean: Array
    seed_means: Array
    by_seed: Array
    by_image: Array
    residual: Array
    seeds: int
    images: int

    def interval(self, weights: ArrayLike) -> Interval:
        """Return the mean of a weighted sum of contrasts with its interval, or the range under five seeds."""
        return Sum((self,)).interval(weights)

    def ratio(self, above: ArrayLike, below: ArrayLike) -> Interval:
        """Return the ratio of two weighted sums with Fieller's interval, paired by seed and image."""
        return Sum((self,)).ratio(above, below)

    def form(self, w: Array) -> Array:
        """Return the quadratic form [k, k] of the variance of means, which at weights w is not below that of seeds."""
        whole = self.by_seed + self.by_image - self.residual
        # Images whose mean square is below the residual by chance may not take away from the noise of seeds.
        larger = whole if w @ whole @ w >= w @ self.by_seed @ w else self.by_seed
        return np.asarray(larger / (self.seeds * self.images))

    def freedom(self, w: Array) -> float:
        """Return Satterthwaite's degrees of freedom of that variance, at least those of the seeds."""
        s, i, r = (float(w @ part @ w) for part in (self.by_seed, self.by_image, self.residual))
        few, many = self.seeds - 1, max(self.images - 1, 1)
        spread = s**2 / few + i**2 / many + r**2 / (few * many)
        return max(max(s + i - r, s) ** 2 / spread, few) if spread > 0 else float(few)


@dataclass(frozen=True)
class Sum:
    """Independent moments of the same contrasts, such as those of several tasks, whose means are added."""

    parts: tuple[Moments, ...]

    @property
    def mean(self) -> Array:
        """Return the summed means [k]."""
        return np.asarray(np.sum([part.mean for part in self.parts], axis=0))

    @property
    def seeds(self) -> int:
        """Return the least number of seeds of any part."""
        return min(part.seeds for part in self.parts)

    @property
    def seed_means(self) -> Array:
        """Return the summed means [k, seed], part by part in one order of seeds."""
        return np.asarray(np.sum([part.seed_means[:, : self.seeds] for part in self.parts], axis=0))

    def interval(self, weights: ArrayLike) -> Interval:
        """Return the summed mean of a weighted sum of contrasts with its interval, or the range under five seeds."""
        w = np.asarray(weights, dtype=np.float64)
        point = float(w @ self.mean)
        if self.seeds < SEEDS_FOR_AN_INTERVAL:
            return _range(point, w @ self.seed_means)
        half = max(float(w @ self._form(w) @ w), 0.0) ** 0.5
        return Interval(point, point - half, point + half)

    def ratio(self, above: ArrayLike, below: ArrayLike) -> Interval:
        """Return the ratio of two weighted sums with Fieller's interval.

        Undefined unless the interval of the denominator lies above 0. Under five seeds it is the range of the ratios.
        """
        a, b = (np.asarray(w, dtype=np.float64) for w in (above, below))
        if not self.interval(b).above_zero:
            return UNKNOWN
        point = float(a @ self.mean) / float(b @ self.mean)
        if self.seeds < SEEDS_FOR_AN_INTERVAL:
            return _range(point, (a @ self.seed_means) / (b @ self.seed_means))
        return _fieller(a, b, self.mean, self._form(a - point * b))

    def _form(self, w: Array) -> Array:
        # The quadratic form of the squared half-width of an interval, degrees of freedom taken at the weights w.
        forms = [part.form(w) for part in self.parts]
        sizes = [float(w @ form @ w) for form in forms]
        spread = sum(size**2 / part.freedom(w) for size, part in zip(sizes, self.parts, strict=True))
        freedom = sum(sizes) ** 2 / spread if spread > 0 else float(self.seeds - 1)
        return np.asarray(float(stdtrit(freedom, (1 + LEVEL) / 2)) ** 2 * np.sum(forms, axis=0))


def moments(contrasts: ArrayLike) -> Moments:
    """Return the moments of contrasts [k, seeds, images]; a single image stands for a score without images."""
    x = np.asarray(contrasts, dtype=np.float64)
    _, seeds, images = x.shape
    mean = x.mean(axis=(1, 2))
    rows, columns = x.mean(axis=2), x.mean(axis=1)
    a, b = rows - mean[:, None], columns - mean[:, None]
    e = (x - rows[:, :, None] - columns[:, None, :] + mean[:, None, None]).reshape(len(x), -1)
    few, many = max(seeds - 1, 1), max(images - 1, 1)
    return Moments(
        mean=mean,
        seed_means=rows,
        by_seed=images * (a @ a.T) / few,
        by_image=seeds * (b @ b.T) / many,
        residual=(e @ e.T) / (few * many),
        seeds=seeds,
        images=images,
    )


def mean_interval(contrast: ArrayLike) -> Interval:
    """Return the mean of one contrast [seeds, images] with its interval, unknown where there is no seed."""
    x = np.asarray(contrast, dtype=np.float64)
    return moments(x[None]).interval([1.0]) if x.size else UNKNOWN


def t_interval(values: ArrayLike) -> Interval:
    """Return the mean of one number a seed with Student's interval, or the range under five seeds."""
    return mean_interval(np.asarray(values, dtype=np.float64)[:, None])


def _range(point: float, values: Array) -> Interval:
    return Interval(point, float(values.min()), float(values.max()))


def _fieller(above: Array, below: Array, mean: Array, form: Array) -> Interval:
    # All rho with ((a - rho b) m)^2 <= (a - rho b) V (a - rho b), where V holds t squared: a quadratic in rho.
    square = (below @ mean) ** 2 - below @ form @ below
    middle = (above @ mean) * (below @ mean) - above @ form @ below
    rest = (above @ mean) ** 2 - above @ form @ above
    point = float(above @ mean) / float(below @ mean)
    if square <= 0:
        return Interval(point, np.nan, np.nan)
    root = max(float(middle**2 - square * rest), 0.0) ** 0.5
    return Interval(point, float((middle - root) / square), float((middle + root) / square))
