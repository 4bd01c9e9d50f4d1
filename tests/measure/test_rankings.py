"""Whether two boards rank alike: orders that are known, SciPy's correlation, and what draws of seeds make of it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr, ttest_1samp
from small_board import SEEDS, small_results, small_suite

from ntbench.measure.rankings import ranked_alike, uplifts
from ntbench.measure.standing import Study

STEPS = np.arange(5)[:, None]
"""Uplifts [row, seed] that lie a hundred times farther apart than the seeds of one row."""
SURE = STEPS + 0.01 * np.random.default_rng(0).standard_normal((5, 6))
"""The same, seeds added."""


def test_the_same_order_is_1_and_the_reverse_is_minus_1_whatever_seeds_are_drawn() -> None:
    assert ranked_alike(SURE, 7 * SURE[:, ::-1] - 2) == pytest.approx((1, 1, 1))
    assert ranked_alike(SURE, -SURE) == pytest.approx((-1, -1, -1))


def test_the_correlation_is_scipys_of_the_means_with_ties_at_their_mean_rank() -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        first, second = random.integers(0, 3, size=(6, 1)) * np.ones(5), random.standard_normal((6, 7))
        found = ranked_alike(first, second)
        assert found.point == pytest.approx(spearmanr(first.mean(axis=1), second.mean(axis=1)).statistic)
        assert -1 <= found.low <= found.point <= found.high <= 1


def test_seeds_that_decide_the_order_widen_the_interval_and_those_of_either_board_do() -> None:
    unsure = STEPS + 10 * np.random.default_rng(2).standard_normal((5, 5))
    for pair in ((SURE, unsure), (unsure, SURE)):
        found = ranked_alike(*pair)
        assert found.high - found.low > 0.5
        assert found == ranked_alike(*pair), "the page is the same every time"


def test_rows_of_one_board_are_drawn_together() -> None:
    # Seeds move all rows by the same: their order is the same in every draw.
    together = SURE + 100 * np.arange(6)
    assert ranked_alike(together, SURE) == pytest.approx((1, 1, 1))


def test_two_rows_have_no_correlation_and_under_five_seeds_there_is_no_interval() -> None:
    assert np.isnan(ranked_alike(SURE[:2], SURE[:2])).all()
    assert np.isnan(ranked_alike(SURE[:, :0], SURE)).all()
    found = ranked_alike(SURE[:, :4], SURE)
    assert found.point == pytest.approx(1) and np.isnan(found[1:]).all()


def test_a_board_without_an_order_agrees_with_none() -> None:
    assert np.isnan(ranked_alike(0 * SURE, SURE)).all()


def test_one_seed_that_alone_tells_the_rows_apart_decides_nothing() -> None:
    once = np.zeros((5, 6))
    once[:, 0] = np.arange(5)
    assert ranked_alike(once, SURE) == pytest.approx((1, -1, 1))


def test_two_rows_change_places_as_often_as_a_t_test_says() -> None:
    # The third row lies far above: the correlation is .5 where the other two change places, and 1 where they do not.
    differences = np.array([0.0246, -0.0044, 0.0081, 0.0364, 0.0148])
    unsure = np.array([0 * differences, differences, 100 + 0 * differences])
    for shift in (0.0, 0.01):
        p = ttest_1samp(differences + shift, 0, alternative="greater").pvalue
        found = ranked_alike(unsure + np.array([[0], [shift], [0]]), SURE[:3])
        assert (found.low == pytest.approx(0.5)) == (p > 0.025)


def test_rows_that_are_always_equal_stay_tied() -> None:
    noise = np.random.default_rng(3).standard_normal(6)
    assert ranked_alike(np.array([noise, noise, noise + 50]), SURE[:3]) == pytest.approx((3**0.5 / 2,) * 3)


def test_sums_in_another_order_tie_all_the_same() -> None:
    tied = np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.6, 0.0, 0.0]])
    assert len({float(row.mean()) for row in tied}) > 1
    assert np.isnan(ranked_alike(tied, SURE[:3, :3])).all()


@pytest.mark.parametrize("axis", ["samples", "compute"])
def test_uplifts_by_seed_are_those_that_the_leak_of_a_board_rests_on(axis: str) -> None:
    results = [r for r in small_results() if (r.cell.defense.label, r.cell.seed) != ("ntp", SEEDS[-1])]
    study = Study(results, small_suite(axis=axis))
    rows = [s for s in study.standings if s.field.track == "target" and s.ranked]
    found = uplifts(rows)
    assert found.shape == (3, len(SEEDS) - 1), "the seed that one row lacks is no seed of any"
    for standing, values in zip(rows, found, strict=True):
        if standing.release.label == "ntp":
            none = next(one for one in rows if one.release.label == "none")
            assert values.mean() / found[rows.index(none)].mean() == pytest.approx(standing.leak.point)
