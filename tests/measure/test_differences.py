"""Changes between two runs: MOVER against its closed form, and what a change is called."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from ntbench.measure.differences import change, differences_table
from ntbench.measure.intervals import Interval


def test_of_two_symmetric_intervals_it_is_the_root_of_squares() -> None:
    found = change(Interval(0.5, 0.2, 0.8), Interval(0.9, 0.5, 1.3))
    np.testing.assert_allclose(found, (0.4, 0.4 - 0.5, 0.4 + 0.5))


def test_of_a_known_number_it_is_the_other_interval() -> None:
    np.testing.assert_allclose(change(Interval(1, 1, 1), Interval(3, 2.5, 4)), (2, 1.5, 3))
    np.testing.assert_allclose(change(Interval(3, 2.5, 4), Interval(1, 1, 1)), (-2, -3, -1.5))


def test_a_ratio_is_compared_in_logarithms() -> None:
    found = change(Interval(2, 1, 4), Interval(8, 4, 16), ratio=True)
    np.testing.assert_allclose(found, np.log(4) + np.array([0, -1, 1]) * np.log(2) * 2**0.5)


def test_its_interval_covers_the_change_of_two_means() -> None:
    draws = np.random.default_rng(0)
    half, hits = 1.96 / 5, 0
    for _ in range(2000):
        one, other = draws.normal([0.0, 0.3], 0.2)
        found = change(Interval(one, one - half, one + half), Interval(other, other - half, other + half))
        hits += found.low <= 0.3 <= found.high
    assert hits / 2000 == pytest.approx(0.95, abs=0.015)


def board(leak: float, half: float, interval: str = "95%", **changes: Any) -> pd.DataFrame:
    row = {"task": "a-b", "track": "target", "defense": "ntp", "mask": "dense", "interval": interval}
    ends = {f"{name}{end}": np.nan for name in ("uplift", "slc", "speedup", "drop") for end in ("", "_low", "_high")}
    return pd.DataFrame([row | ends | {"leak": leak, "leak_low": leak - half, "leak_high": leak + half} | changes])


@pytest.mark.parametrize(
    ("after", "what"),
    [
        (board(0.3, 0.1), "same"),
        (board(0.4, 0.1), "noise"),
        (board(0.5, 0.1), "moved"),
        (board(0.5, 0.1, "range"), "few seeds"),
        (board(np.nan, 0.1), "only before"),
        (board(0.5, np.nan), "few seeds"),
    ],
)
def test_a_change_is_called_what_it_is(after: pd.DataFrame, what: str) -> None:
    table = differences_table(board(0.3, 0.1), after)
    assert table[["number", "what"]].values.tolist() == [["leak", what]]


def test_a_row_of_one_run_alone_is_told() -> None:
    table = differences_table(board(0.3, 0.1), board(0.3, 0.1, defense="sophon"))
    assert table[["defense", "what"]].values.tolist() == [["ntp", "only before"], ["sophon", "only after"]]
