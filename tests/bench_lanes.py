"""Cells side by side as lanes against the same cells one after another, on whatever device is there."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean

import pytest
import torch
from bench_table import figure
from pytest_benchmark.fixture import BenchmarkFixture
from research_code import adam_cells, measured, runner, seconds

from ntbench.engine.lanes import run_lanes
from ntbench.types import Budget, Result

GOAL = 20.0
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LANES, ROUNDS = (32, 3) if DEVICE.type == "cuda" else (4, 1)
SHORT = Budget(t90=40, horizon=0.5)
"""20 steps, for a processor: lanes are for accelerators, which take the steps of `quick`."""


def test_lanes_against_one_cell_after_another(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """One process each; the model is protected, and both have run once, before the clock starts. Rounds alternate."""
    cells = adam_cells([1e-3 * 1.05**k for k in range(LANES)])
    if DEVICE.type == "cpu":
        cells = [cell.model_copy(update={"budget": SHORT}) for cell in cells]
    ours = replace(runner(tmp_path), device=DEVICE)
    together: list[Result] = []
    alone: list[Result] = []
    apart: list[float] = []

    def side_by_side() -> None:
        together[:] = run_lanes(ours, cells)

    def one_by_one() -> None:
        alone[:] = map(ours.run, cells)

    side_by_side()
    one_by_one()
    fast = measured(benchmark, side_by_side, ROUNDS, before=lambda: apart.append(seconds(partial(one_by_one)))).min
    ratio = min(apart) / fast
    benchmark.extra_info.update(ratio=ratio, device=DEVICE.type, lanes=LANES, load=os.getloadavg()[0])
    print(
        f"\nlanes: {LANES} cells on {DEVICE.type} side by side {fast:.2f} s, one after another {min(apart):.2f} s: "
        f"{ratio:.2f} times as fast; load {os.getloadavg()[0]:.1f}"
    )
    goal = f"{GOAL:g} times" if DEVICE.type == "cuda" else f"{GOAL:g} times on an accelerator"
    figure(benchmark, f"{LANES} lanes on {DEVICE.type}", f"{ratio:.2f} times as fast as one by one", goal)
    assert {(r.status, r.provenance and r.provenance.lanes) for r in together} == {("ok", LANES)}
    reached, wanted = (mean(r.trajectory.test[-1] for r in results) for results in (together, alone))
    assert reached == pytest.approx(wanted, abs=0.01), "both ways must train equally well"
    if DEVICE.type == "cuda":
        assert ratio >= GOAL
