"""Rows of a board that ranks over compute, of which one releases nothing that anybody could attack."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from fabricated import ATTACKS, COUNTS, SEEDS, additive, grid, result, row, suite

from ntbench.measure.board import leaderboard_table

ROWS = [(name, "dense") for name in ("none", "scratch", "sophon")]


@pytest.mark.parametrize("axis", ["samples", "compute"])
def test_of_a_release_that_nobody_could_attack_nothing_is_known(axis: Literal["samples", "compute"]) -> None:
    found = list(grid(additive, rows=ROWS))
    places = ((attack, n, seed) for attack in ATTACKS for n in COUNTS for seed in SEEDS)
    found += [result("ntp", *place, 0.0, path=[], status="unusable", error="lost the source") for place in places]
    board = leaderboard_table(found, suite(axis=axis))
    lost = row(board, "ntp")
    assert np.isnan([lost.leak, lost.leak_low, lost.uplift]).all()
    assert row(board, "none").leak == pytest.approx(1) and row(board, "scratch").leak == pytest.approx(0)
