"""The metrics against closed forms, NumPy, scikit-learn and SciPy."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import auc

from ntbench.measure.metrics import (
    bootstrap_interval,
    cost_to_reach,
    intactness,
    learning_curve_area,
    normalised,
    overhead,
    protection_cost,
    resamples,
    slc_auc,
    worst_case,
)

GRID = np.array([10, 21, 53, 107, 320, 1068])


def curves(seed: int) -> tuple[np.ndarray, np.ndarray]:
    defense, scratch = np.random.default_rng(seed).uniform(size=(2, GRID.size))
    return defense, scratch


@pytest.mark.parametrize("seed", range(5))
def test_area_agrees_with_numpy_and_scikit_learn(seed: int) -> None:
    accuracy, _ = curves(seed)
    area = learning_curve_area(GRID, accuracy)
    assert area == pytest.approx(np.trapezoid(accuracy, np.log(GRID)), rel=1e-12)
    assert area == pytest.approx(auc(np.log(GRID), accuracy), rel=1e-12)


def test_area_of_a_line_in_the_natural_log() -> None:
    accuracy = 0.1 + 0.05 * np.log(GRID / GRID[0])
    span = np.log(GRID[-1] / GRID[0])
    assert learning_curve_area(GRID, accuracy) == pytest.approx(0.1 * span + 0.05 * span**2 / 2, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_slc_auc_is_the_trapezoid_of_the_differences(seed: int) -> None:
    defense, scratch = curves(seed)
    d = defense - scratch
    by_hand = sum((np.log(GRID[i + 1]) - np.log(GRID[i])) * (d[i] + d[i + 1]) / 2 for i in range(GRID.size - 1))
    assert slc_auc(GRID, defense, scratch) == pytest.approx(by_hand, rel=1e-12)
    assert slc_auc(GRID, scratch, defense) == pytest.approx(-by_hand, rel=1e-12)


def test_a_constant_gap_normalises_to_itself() -> None:
    _, scratch = curves(0)
    area = slc_auc(GRID, scratch - 0.07, scratch)
    assert area == pytest.approx(-0.07 * np.log(106.8), rel=1e-9)
    assert normalised(area, GRID) == pytest.approx(-0.07, rel=1e-9)


@pytest.mark.parametrize(
    ("samples", "accuracy", "named"),
    [
        ([10, 30, 20], [0.1, 0.2, 0.3], r"30\.0, 20\.0"),
        ([10, 10, 20], [0.1, 0.2, 0.3], "duplicates"),
        ([10, 20, 30], [0.1, 0.2], r"\(2,\)"),
        ([10, 20], [0.1, np.nan], "nan"),
        ([10, 20], [0.1, np.inf], "inf"),
        ([10, np.inf], [0.1, 0.2], "inf"),
        ([10], [0.1], r"\[10\.0\]"),
        ([], [], "at least two"),
        ([0, 10], [0.1, 0.2], "positive"),
        ([[10, 20]], [[0.1, 0.2]], "list"),
    ],
)
def test_bad_grids_are_refused_by_value(samples: list[float], accuracy: list[float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        learning_curve_area(samples, accuracy)
    with pytest.raises(ValueError, match=named):
        slc_auc(samples, accuracy, accuracy)


def test_curves_of_different_grids_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2,\)"):
        slc_auc([10, 20, 30], [0.1, 0.2, 0.3], [0.1, 0.2])


def test_cost_is_that_of_the_first_scored_point_at_the_threshold() -> None:
    cost, accuracy = [0, 5, 10, 20], [0.1, 0.5, 0.4, 0.9]
    assert cost_to_reach(cost, accuracy, 0.5) == 5
    assert cost_to_reach(cost, accuracy, 0.51) == 20
    assert cost_to_reach(cost, accuracy, 0.05) == 0
    assert cost_to_reach(cost, accuracy, 0.91) == np.inf
    assert cost_to_reach(cost, accuracy, 0.5 + 1e-15) == 5


def test_cost_works_along_the_last_axis() -> None:
    cost = np.broadcast_to([0, 5, 10], (2, 2, 3))
    accuracy = np.array([[[0.1, 0.6, 0.7], [0.9, 0.9, 0.9]], [[0.1, 0.2, 0.3], [np.nan] * 3]])
    assert cost_to_reach(cost, accuracy, 0.6).tolist() == [[5, 0], [np.inf, np.inf]]
    with pytest.raises(ValueError, match=r"\(3,\)"):
        cost_to_reach([0, 1, 2], [0.1, 0.2], 0.5)


def test_overhead_is_the_ratio_of_medians() -> None:
    found = overhead([40, 20, 80], [80, 80, 80], [10, 5, 20], floor=5)
    assert (found.value, found.censored, found.share) == (4, False, 0)
    assert found.restricted == pytest.approx(140 / 3 / 10)


def test_censored_overhead_is_the_budget_over_scratch() -> None:
    found = overhead([np.inf, np.inf, 40], [80, 80, 80], [10, 10, 10], floor=5)
    assert (found.value, found.censored) == (8, True)
    assert found.share == pytest.approx(2 / 3)
    assert found.restricted == pytest.approx(200 / 3 / 10)


def test_a_minority_of_censored_seeds_counts_as_infinite_in_the_median() -> None:
    found = overhead([np.inf, 20, 40], [80, 80, 80], [10, 10, 10], floor=5)
    assert (found.value, found.censored) == (4, False)


def test_half_the_seeds_censored_is_censored() -> None:
    found = overhead([np.inf, 40], [80, 80], [10, 10], floor=5)
    assert (found.value, found.censored, found.share) == (6, True, 0.5)


def test_zero_costs() -> None:
    assert overhead([0, 0], [80, 80], [10, 10], floor=5).value == 0
    assert overhead([20, 20], [80, 80], [0, 0], floor=5).value == 4
    with pytest.raises(ValueError, match="floor=0"):
        overhead([0], [80], [0], floor=0)


def test_overhead_is_unknown_where_scratch_never_arrives() -> None:
    found = overhead([20, 20], [80, 80], [np.inf, np.inf], floor=5)
    assert np.isnan(found.value) and np.isnan(found.restricted)


def test_small_bootstraps_are_all_resamples() -> None:
    assert sorted(map(tuple, resamples(3))) == sorted(product(range(3), repeat=3))
    assert resamples(5).shape == (5**5, 5)


def test_three_seeds_give_their_extremes() -> None:
    # P(all three draws are the smallest) = 1/27 > 2.5 %.
    low, high = bootstrap_interval([0.3, -0.1, 0.2])
    assert [low, high] == pytest.approx([-0.1, 0.3])


@pytest.mark.parametrize("size", [4, 5, 8, 20])
def test_interval_agrees_with_scipy(size: int) -> None:
    values = np.random.default_rng(size).normal(size=size)
    theirs = bootstrap((values,), np.mean, n_resamples=40_000, method="percentile", rng=np.random.default_rng(0))
    spread = theirs.confidence_interval.high - theirs.confidence_interval.low
    ours = bootstrap_interval(values)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.03 * spread)
    assert ours == bootstrap_interval(values)


def test_interval_narrows_with_the_level_and_needs_two_seeds() -> None:
    values = np.random.default_rng(0).normal(size=5)
    wide, narrow = bootstrap_interval(values, 0.95), bootstrap_interval(values, 0.5)
    assert wide[0] < narrow[0] < values.mean() < narrow[1] < wide[1]
    assert np.isnan(bootstrap_interval([0.5])).all() and np.isnan(bootstrap_interval([])).all()
    with pytest.raises(ValueError, match="nan"):
        bootstrap_interval([0.1, np.nan])
    with pytest.raises(ValueError, match="level=95"):
        bootstrap_interval([0.1, 0.2], level=95)


def test_worst_case_chooses_on_seed_means_and_reports_test() -> None:
    selection = np.array([[[0.5, 0.5], [0.1, 0.1]], [[0.95, 0.1], [0.1, 0.2]]])
    test = np.array([[[0.4, 0.6], [0.3, 0.3]], [[0.9, 0.9], [0.2, 0.1]]])
    choice, curve = worst_case(selection, test)
    assert choice.tolist() == [1, 1] and curve.tolist() == [[0.9, 0.9], [0.2, 0.1]]
    choice, curve = worst_case(test, test)
    assert choice.tolist() == [1, 0] and curve.tolist() == [[0.9, 0.9], [0.3, 0.3]]


def test_the_first_of_equal_attacks_is_chosen() -> None:
    selection = np.full((3, 1, 2), 0.5)
    choice, curve = worst_case(selection, np.arange(6.0).reshape(3, 1, 2))
    assert choice.tolist() == [0] and curve.tolist() == [[0, 1]]
    sums = np.array([[[0.3, 0.2, 0.1]], [[0.1, 0.2, 0.3]]])
    assert worst_case(sums, sums)[0].tolist() == worst_case(sums[::-1], sums)[0].tolist() == [0]


def test_an_attack_that_lacks_a_seed_is_not_chosen() -> None:
    selection = np.array([[[0.9, np.nan], [np.nan, np.nan]], [[0.2, 0.2], [0.9, np.nan]]])
    choice, curve = worst_case(selection, selection)
    assert choice.tolist() == [1, -1]
    assert curve[0].tolist() == [0.2, 0.2] and np.isnan(curve[1]).all()
    assert worst_case(np.ones((2, 2, 2)), selection)[0].tolist() == [1, -1]
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        worst_case(selection[0], selection[0])


def test_intactness_is_the_loss_per_seed_and_refuses_percent() -> None:
    assert intactness([0.99, 0.98], [0.97, 0.99]) == pytest.approx([0.02, -0.01])
    with pytest.raises(ValueError, match=r"99\.0"):
        intactness([99.0], [0.97])


def test_protection_cost_is_a_ratio_of_sums() -> None:
    assert protection_cost([26, 24], [10, 15]) == 2
    assert np.isnan(protection_cost([26], [0])) and np.isnan(protection_cost([], []))
