import numpy as np
import pytest
from scipy.integrate import trapezoid

from ntbench.measure.areas import log_range, mean_weights, slc_auc, trapezoid_weights

COUNTS = [12, 60, 240, 1200]


def test_the_area_is_the_trapezoid_over_the_log_of_the_counts() -> None:
    scores = np.random.default_rng(0).random((2, 4))
    assert slc_auc(COUNTS, *scores) == pytest.approx(trapezoid(scores[0] - scores[1], np.log(COUNTS)))


def test_a_gap_that_is_the_same_everywhere_is_the_gap_times_the_log_range() -> None:
    assert slc_auc(COUNTS, np.full(4, 0.7), np.full(4, 0.5)) == pytest.approx(0.2 * np.log(100))
    assert mean_weights(COUNTS) @ np.full(4, 0.2) == pytest.approx(0.2)
    assert trapezoid_weights(COUNTS).sum() == pytest.approx(log_range(COUNTS))


@pytest.mark.parametrize("grid", [[5], [5, 5], [0, 5], [5, 3]])
def test_a_grid_must_rise(grid: list[int]) -> None:
    with pytest.raises(ValueError, match="rise strictly"):
        trapezoid_weights(grid)


def test_scores_must_lie_on_the_grid() -> None:
    with pytest.raises(ValueError, match="one score per count"):
        slc_auc([1, 2, 3], [1, 2], [1, 2])
