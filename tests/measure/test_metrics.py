"""The metrics on plain arrays, against closed forms, SciPy, and the board of the same numbers."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from fabricated import ENDS, additive, grid, suite
from scipy import stats

from ntbench.measure.board import leaderboard_table
from ntbench.measure.lines import learning_curves
from ntbench.measure.metrics import leak, overhead, slc_auc, speedup, uplift

COUNTS = [10, 100, 1000]
LOG = np.log(10)


def test_a_constant_gain_is_the_uplift_and_its_area_that_times_the_log_range() -> None:
    base = np.array([0.2, 0.5, 0.6])
    assert slc_auc(COUNTS, base + 0.1, base) == pytest.approx(0.1 * 2 * LOG)
    assert uplift(COUNTS, base + 0.1, base).point == pytest.approx(0.1)
    assert leak(COUNTS, base + 0.1, base + 0.4, base).point == pytest.approx(0.25)


def test_the_interval_of_an_uplift_is_students_over_seeds() -> None:
    gains = np.array([0.1, 0.12, 0.08, 0.15, 0.05])
    found = uplift(COUNTS, np.tile(0.5 + gains, (3, 1)), np.full((3, 5), 0.5))
    low, high = stats.t.interval(0.95, 4, gains.mean(), stats.sem(gains))
    np.testing.assert_allclose(found, (gains.mean(), low, high))
    assert uplift(COUNTS, np.tile(0.5 + gains[:3], (3, 1)), np.full((3, 3), 0.5))[1:] == pytest.approx((0.08, 0.12))


def test_they_say_what_the_board_says() -> None:
    results = list(grid(additive, rows=(("none", "dense"), ("scratch", "dense"), ("ntp", "dense")), refusing=False))
    board = leaderboard_table(results, suite())
    row = board[board["defense"] == "ntp"].iloc[0]
    curves = learning_curves(results, suite())
    wide: Any = curves.pivot_table(index="samples", columns=["defense", "seed"], values="rational")
    numbers = (wide[name].to_numpy() for name in ("ntp", "none", "scratch"))
    ours, none, base = numbers
    np.testing.assert_allclose(leak(COUNTS, ours, none, base), row[["leak", "leak_low", "leak_high"]].astype(float))
    assert uplift(COUNTS, ours, base).point == pytest.approx(row["uplift"])


def test_an_overhead_interpolates_in_the_log_of_steps() -> None:
    # 90% of the plateau 0.5 is 0.45: scratch is there half way, in logs, from 4 to 8 steps; the release at 1 step.
    base, release = [0.1, 0.2, 0.4, 0.5, 0.5], [0.45, 0.5, 0.5, 0.5, 0.5]
    steps = [1, 2, 4, 8, 16]
    found = speedup(steps, release, base)
    assert found.interval.point == pytest.approx(4 * 2**0.5) and not found.bound
    assert overhead(steps, release, base).interval.point == pytest.approx(1 / (4 * 2**0.5))
    assert overhead(steps, base, release, plateau=0.5).interval.point == pytest.approx(4 * 2**0.5)


def test_a_release_that_never_gets_there_has_a_bound() -> None:
    found = overhead(ENDS, [0.1] * len(ENDS), [0.1, *[0.5] * (len(ENDS) - 1)])
    assert found.bound == ">" and found.interval.point == pytest.approx(ENDS[-1] / 2 ** (1 / 1), rel=0.2)


@pytest.mark.parametrize(
    "call",
    [
        lambda: uplift(COUNTS, [0.1, 0.2], [0.1, 0.2, 0.3]),
        lambda: leak(COUNTS, [0.1] * 3, np.zeros((2, 2)), [0.1] * 3),
        lambda: overhead([1, 2], [0.1, 0.2, 0.3], [0.1, 0.2]),
        lambda: overhead([1, 2], [0.1, 0.2], np.zeros((1, 1, 2))),
        lambda: slc_auc([10, 5], [0.1, 0.2], [0.1, 0.2]),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call: Any) -> None:
    with pytest.raises(ValueError, match=r"scores|grid"):
        call()


def test_metrics_and_runs_need_no_torch_and_the_package_nothing() -> None:
    code = (
        "import sys; import ntbench; before = sorted({'numpy', 'pandas', 'torch'} & {*sys.modules})\n"
        "print(before, ntbench.slc_auc([1, 10], [0.5, 0.5], [0, 0]), ntbench.load.__name__, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["[]", str(slc_auc([1, 10], [0.5, 0.5], [0, 0])), "load", "False"], done.stderr
