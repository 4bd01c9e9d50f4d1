"""Intervals: closed forms against SciPy, and their coverage at five seeds by simulation."""

import numpy as np
import pytest
from scipy import stats

from ntbench.measure.areas import Array
from ntbench.measure.intervals import UNKNOWN, Sum, kind_of, mean_interval, moments, t_interval

SEEDS, IMAGES, RUNS = 5, 60, 2000
NOISE = [(0.05, 0.3, 0.3), (0.02, 0.1, 0.5), (0.0, 0.3, 0.3), (0.05, 0.0, 0.3), (0.0, 0.0, 0.3), (0.1, 0.05, 0.05)]
"""Standard deviations of seeds, images, and what is left."""


def layouts(noise: tuple[float, float, float], seed: int, runs: int = RUNS, seeds: int = SEEDS) -> Array:
    """Return centred arrays [run, seed, image]."""
    draw = np.random.default_rng(seed).standard_normal
    by_seed, by_image, left = noise
    crossed = by_seed * draw((runs, seeds, 1)) + by_image * draw((runs, 1, IMAGES))
    return np.asarray(crossed + left * draw((runs, seeds, IMAGES)))


def test_without_images_it_is_students_interval() -> None:
    values = np.random.default_rng(1).normal(3, 2, 7)
    found = t_interval(values)
    ends = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found == pytest.approx((values.mean(), ends.low, ends.high))


def test_mean_squares_are_those_of_the_two_way_layout() -> None:
    x = np.random.default_rng(2).normal(size=(6, 11))
    held = moments(x[None])
    a, b = x.mean(axis=1, keepdims=True), x.mean(axis=0, keepdims=True)
    left = x - a - b + x.mean()
    assert held.by_seed[0, 0] == pytest.approx(11 * np.var(a, ddof=1))
    assert held.by_image[0, 0] == pytest.approx(6 * np.var(b, ddof=1))
    assert held.residual[0, 0] == pytest.approx((left**2).sum() / 50)
    # The one-way F statistic of seeds has the same numerator.
    within = held.by_seed[0, 0] / stats.f_oneway(*x).statistic
    assert within == pytest.approx(((x - a) ** 2).sum() / 60)


def test_moments_of_a_sum_are_a_form_of_the_moments() -> None:
    d, n = np.random.default_rng(3).normal(size=(2, 5, 40))
    held, rho = moments(np.stack([d, n])), 0.37
    assert held.interval([1, -rho]) == pytest.approx(mean_interval(d - rho * n))


def test_fieller_inverts_the_interval_of_the_difference() -> None:
    n = 0.3 + layouts((0.03, 0.2, 0.3), 4, 1)[0]
    d = 0.4 * n + layouts((0.03, 0.1, 0.3), 5, 1)[0]
    held = moments(np.stack([d, n]))
    found = held.ratio([1, 0], [0, 1])
    assert found.point == pytest.approx(d.mean() / n.mean())
    contrast = np.array([1, -found.point])
    t = stats.t.ppf(0.975, held.freedom(contrast))
    for rho in (found.low, found.high):
        w = np.array([1, -rho])
        assert abs(w @ held.mean) == pytest.approx(t * np.sqrt(w @ held.form(contrast) @ w))


def test_a_ratio_to_itself_is_one_and_of_nothing_is_zero() -> None:
    n = 0.3 + layouts((0.03, 0.2, 0.3), 6, 1)[0]
    held = moments(np.stack([n, n, 0 * n]))
    assert held.ratio([1, 0, 0], [0, 1, 0]) == pytest.approx((1, 1, 1))
    assert held.ratio([0, 0, 1], [0, 1, 0]) == pytest.approx((0, 0, 0))


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_ratio_needs_a_denominator_above_zero(seeds: int) -> None:
    n = layouts((0.1, 0.1, 0.1), 7, 1, seeds)[0]
    assert moments(np.stack([n, n - n.mean()])).ratio([1, 0], [0, 1]) is UNKNOWN


def test_under_five_seeds_it_is_the_range_and_named_so() -> None:
    values = np.array([[1.0, 2.0], [3.0, 4.0], [2.0, 3.0]])
    assert mean_interval(values) == (2.5, 1.5, 3.5)
    assert moments(np.stack([values, 2 * values])).ratio([1, 0], [0, 1]) == pytest.approx((0.5, 0.5, 0.5))
    assert (kind_of(4), kind_of(5)) == ("range", "95%")
    assert mean_interval(np.empty((0, 3))) is UNKNOWN


def test_variances_of_independent_parts_add() -> None:
    parts = layouts((0.1, 0.1, 0.1), 8, 2)
    whole = Sum(tuple(moments(part[None]) for part in parts))
    assert whole.interval([1]).point == pytest.approx(parts.mean(axis=(1, 2)).sum())
    alone = [mean_interval(part) for part in parts]
    half = whole.interval([1]).high - whole.interval([1]).point
    assert max(a.high - a.point for a in alone) < half < sum(a.high - a.point for a in alone)


@pytest.mark.parametrize("noise", NOISE)
def test_the_interval_of_a_mean_covers(noise: tuple[float, float, float]) -> None:
    found = np.array([mean_interval(0.2 + x) for x in layouts(noise, 10)])
    covered = ((found[:, 1] <= 0.2) & (found[:, 2] >= 0.2)).mean()
    print(f"mean, noise {noise}: {covered:.3f}, upper end {(found[:, 2] >= 0.2).mean():.3f}")
    assert 0.93 <= covered <= 0.97
    assert (found[:, 2] >= 0.2).mean() >= 0.95


@pytest.mark.parametrize("noise", NOISE[:4])
@pytest.mark.parametrize("leak", [0.0, 0.3, 0.9])
def test_the_interval_of_a_leak_covers(noise: tuple[float, float, float], leak: float) -> None:
    none = 0.25 + layouts(noise, 11)
    ours = 0.25 * leak + 0.5 * (none - 0.25) + layouts(noise, 12)
    found = np.array([moments(np.stack(pair)).ratio([1, 0], [0, 1]) for pair in zip(ours, none, strict=True)])
    found = found[np.isfinite(found[:, 1])]
    covered = ((found[:, 1] <= leak) & (leak <= found[:, 2])).mean()
    print(f"leak {leak}, noise {noise}: {covered:.3f}, upper end {(found[:, 2] >= leak).mean():.3f}")
    assert 0.93 <= covered <= 0.97
    assert (found[:, 2] >= leak).mean() >= 0.95


def test_the_interval_of_a_drop_of_bits_covers() -> None:
    # Which images of one test set are right before and after: easy and hard images, and seeds that lose more or less.
    draw = np.random.default_rng(13)
    found = []
    for _ in range(RUNS):
        ease, shift = draw.beta(6, 2, (1, 200)), draw.normal(0.02, 0.01, (SEEDS, 1))
        before = draw.random((SEEDS, 200)) < ease
        after = draw.random((SEEDS, 200)) < np.clip(ease - shift, 0, 1)
        found.append(mean_interval(before.astype(float) - after))
    point, low, high = np.array(found).T
    truth = point.mean()
    covered = ((low <= truth) & (truth <= high)).mean()
    print(f"drop {truth:.3f}: {covered:.3f}, upper end {(high >= truth).mean():.3f}")
    assert 0.93 <= covered <= 0.97
    assert (high >= truth).mean() >= 0.95
