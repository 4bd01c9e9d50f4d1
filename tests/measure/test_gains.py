"""What a release adds: closed forms, and the coverage of the whole attacker, choice and all."""

from collections.abc import Iterator

import numpy as np
import pytest
from fabricated import COUNTS, SEEDS, additive, grid, outcome, recipe, suite, trajectory, with_bits

from ntbench.measure.areas import Array, log_range, mean_weights
from ntbench.measure.budgets import compute_gains, compute_uplift, gain_over_compute
from ntbench.measure.choice import Choice, choose, others_mean
from ntbench.measure.collect import collect
from ntbench.measure.gains import (
    Gain,
    area_alone,
    contributions,
    gain,
    leak,
    uplift,
)
from ntbench.measure.tracks import Row, pool
from ntbench.types import Result, pack_bits

NOTHING = Choice((), np.full((0, 0), -1), np.full((0, 0), -1), np.full((0, 0), np.nan))


def gains(results: Iterator[Result]) -> dict[str, Gain]:
    curves = collect(results, suite())[0]
    return {r.label: gain(curves, pool(curves, Row(i), "target")) for i, r in enumerate(curves.releases)}


def test_a_gain_that_is_the_same_everywhere_is_the_uplift() -> None:
    found = gains(grid(additive))
    assert uplift(found["none"]).point == pytest.approx(0.2)
    assert leak(found["ntp"], found["none"]).point == pytest.approx(0.5)
    assert area_alone(found["ntp"]).point == pytest.approx(0.1 * np.log(100))
    assert area_alone(found["sophon"]).point == pytest.approx(-0.1 * np.log(100))


def test_a_rational_attacker_never_does_worse_than_the_baseline() -> None:
    found = gains(grid(additive))
    assert uplift(found["sophon"]) == (0, 0, 0)
    assert leak(found["sophon"], found["none"]) == pytest.approx((0, 0, 0))
    assert found["sophon"].taken.all()


def test_a_leak_is_paired_by_seed() -> None:
    # Noise that both rows share at every seed cancels in their ratio.
    size = {"none": 0.2, "scratch": 0.0, "ntp": 0.1, "ntp keep": 0.0, "sophon": 0.0}
    found = gains(grid(lambda row, attack, samples, seed: 0.4 + size[row] * (1 + 0.2 * seed)))
    assert uplift(found["none"]).low < 0.25
    assert leak(found["ntp"], found["none"]) == pytest.approx((0.5, 0.5, 0.5))


def test_images_add_up_to_the_score() -> None:
    curves = collect(with_bits(additive), suite())[0]
    picked = choose(curves, pool(curves, Row(0), "target").release)
    each = contributions(curves, picked, curves.grid, range(5))
    assert each.shape == (3, 5, 200)
    assert each.mean(axis=2) == pytest.approx(picked.score)


def test_views_of_one_image_count_as_one() -> None:
    right = np.array([1, 1, 0, 1, 0, 0, 1, 1, 0], dtype=bool)
    cell = recipe("none", "weak", 10, 0)
    run = trajectory([right.mean()], right=[right])
    curves = collect([outcome(cell, run, images=9, originals=3)], suite())[0]
    assert run.correct == (pack_bits(right),)
    assert curves.right(curves.grid, (0, 0, 0, 0, curves.grid.val.shape[-1] - 1)) == pytest.approx([1, 2 / 3, 0])


def test_a_seed_without_some_count_is_left_out() -> None:
    kept = (r for r in grid(additive) if (r.cell.samples, r.cell.seed) != (100, 3))
    assert gains(kept)["none"].seeds == (0, 1, 2, 4)


def test_uplift_over_compute_is_the_trapezoid_over_the_log_of_budgets() -> None:
    def path(level: float) -> list[float]:
        return [level * k / 7 for k in range(1, 8)]

    results = [
        outcome(recipe(defense, "weak", n, s), trajectory(path(level)))
        for defense, level in (("none", 0.7), ("scratch", 0.35))
        for n in COUNTS
        for s in SEEDS
    ]
    curves = collect(results, suite())[0]
    found = compute_gains(curves, pool(curves, Row(0), "target"))
    assert found is not None
    ends = np.array([1.0, 2, 5, 10, 20, 40, 80])
    gaps = (np.array(path(0.7)) - path(0.35))[1:]
    # At the smallest budgets attackers stay with what they have; here every larger one is better.
    assert found[0][0] == pytest.approx(ends)
    assert found[0][1][1:].mean(axis=(1, 2)) == pytest.approx(gaps)
    area = np.trapezoid(np.array(path(0.7)) - path(0.35), np.log(ends)) / log_range(ends)
    assert compute_uplift(found).point == pytest.approx(area)
    judged = gain_over_compute(curves, pool(curves, Row(0), "target"))
    assert uplift(judged).point == pytest.approx(area) and judged.weights.sum() == pytest.approx(1)
    assert leak(judged, judged).point == pytest.approx(1)


def attackers(effect: Array, spread: float, common: float, seed: int, runs: int) -> Iterator[tuple[Gain, Gain]]:
    """Yield gains of a release whose gain over the baseline is `effect` [count], and of an unprotected one of .2.

    The attacker chooses by validation scores of other seeds, whose images all seeds share as they share test images.
    """
    draw = np.random.default_rng(seed).standard_normal
    counts, n = COUNTS, len(COUNTS)
    for _ in range(runs):
        release = effect[:, None] + spread * draw((n, 5))
        val = (release + spread * draw((n, 5)) + common * draw((n, 1)))[None, :, :, None]
        takes = others_mean(val)[0, :, :, 0] > 1e-9
        images = common * np.sqrt(40) * draw((n, 1, 40)) + 0.1 * draw((n, 5, 40))
        alone = release[:, :, None] + images
        none = 0.2 + spread * draw((n, 5, 1)) + common * np.sqrt(40) * draw((n, 1, 40)) + 0.1 * draw((n, 5, 40))
        ours = np.where(takes[:, :, None], alone, 0.0)
        never = np.zeros(n, dtype=bool)
        yield (
            Gain(counts, SEEDS, ours, alone, np.logical_not(takes.all(axis=1)), NOTHING, NOTHING, NOTHING),
            Gain(counts, SEEDS, none, none, never, NOTHING, NOTHING, NOTHING),
        )


NEAR_ZERO = [(-0.05,) * 3, (-0.01,) * 3, (0.0,) * 3, (0.005,) * 3, (-0.02, 0.0, 0.01)]


@pytest.mark.parametrize("effect", NEAR_ZERO)
@pytest.mark.parametrize(("spread", "common"), [(0.02, 0.01), (0.005, 0.03)])
def test_the_upper_end_covers_where_the_truth_is_near_zero(
    effect: tuple[float, ...], spread: float, common: float
) -> None:
    pairs = list(attackers(np.array(effect), spread, common, 20, 600))
    added = np.array([mean_weights(COUNTS) @ ours.attacker.mean(axis=(1, 2)) for ours, _ in pairs])
    truth = added.mean()
    zeros = np.mean([(ours.attacker == 0).all() for ours, _ in pairs])
    upper = np.mean([uplift(ours).high >= truth - 1e-12 for ours, _ in pairs])
    leaks = np.array([leak(*pair).high for pair in pairs])
    over = np.mean(leaks[np.isfinite(leaks)] >= truth / 0.2 - 1e-12)
    said = f"effect {effect}, noise {spread}, {common}: uplift {truth:.4f}, all zero {zeros:.2f}"
    print(f"{said}, upper end {upper:.3f}, of the leak {over:.3f}")
    assert upper >= 0.95
    assert over >= 0.95


@pytest.mark.parametrize("effect", [(0.1,) * 3, (0.05, 0.1, 0.2)])
def test_both_ends_cover_where_the_truth_is_away_from_zero(effect: tuple[float, ...]) -> None:
    pairs = list(attackers(np.array(effect), 0.02, 0.01, 21, 2000))
    truth = float(mean_weights(COUNTS) @ np.array(effect))
    for name, found, true in (
        ("uplift", [uplift(ours) for ours, _ in pairs], truth),
        ("leak", [leak(*pair) for pair in pairs], truth / 0.2),
    ):
        covered = np.mean([i.low <= true <= i.high for i in found])
        print(f"effect {effect}: {name} {true:.3f} covered {covered:.3f}")
        assert 0.93 <= covered <= 0.97
