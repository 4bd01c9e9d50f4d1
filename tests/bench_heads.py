"""Cells that train the head alone against cells that train everything, from the same protected weights, in one process.

In the time is all that a cell of either kind does: reading the released weights, building and loading the model, the
attacker's copy of the data, the steps of all budgets on 600 samples with their branches, scoring at every budget, an
encoding of the attacker's samples, checks, provenance. Out is what cells share: pretraining, protecting, and one
encoding of validation and test images, which the first cell of a released model pays for; it is printed.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
from bench_table import figure
from pytest_benchmark.fixture import BenchmarkFixture
from research_code import adam_cells, measured, runner, seconds, threads

from ntbench.engine.runner import Runner
from ntbench.types import Cell

RATES = [1e-3 * 1.25**i for i in range(8)]
FULL = 2
"""Full cells in a batch: each is as long as the others, so that fewer do."""
ROUNDS = 3
GOAL = 20.0


def run_all(ours: Runner, cells: list[Cell]) -> None:
    results = [ours.run(cell) for cell in cells]
    assert {result.status for result in results} == {"ok"}
    assert all(len(result.trajectory.step) == len(result.cell.budget.ends) for result in results)


@pytest.mark.parametrize("arch", ["cnn_bn", "cnns_bn"])
def test_head_only_cells_against_full_cells(benchmark: BenchmarkFixture, tmp_path: Path, arch: str) -> None:
    """The rounds of both alternate; of the two small networks the larger one has the goal."""
    heads = adam_cells(RATES, strategies=["direct-FC"], arch=arch)
    fulls = adam_cells(RATES[:FULL], arch=arch)
    ours = runner(tmp_path)
    full: list[float] = []
    with threads(1):
        ours.protected(heads[0])
        first = seconds(partial(run_all, ours, heads[:1]))
        run_all(ours, fulls[:1])
        head = measured(
            benchmark,
            partial(run_all, ours, heads),
            ROUNDS,
            before=lambda: full.append(seconds(partial(run_all, ours, fulls))),
        ).min / len(heads)
    ratio = min(full) / len(fulls) / head
    benchmark.extra_info.update(ratio=ratio, load=os.getloadavg()[0])
    print(
        f"\nheads: {arch}: a full cell {min(full) / len(fulls):.3f} s, a head-only cell {head:.4f} s "
        f"({first:.3f} s with the encoding): {ratio:.1f} times cheaper; load {os.getloadavg()[0]:.1f}"
    )
    figure(benchmark, f"head-only cell, first / later ({arch})", f"{first:.2f} / {head:.3f} s", "2 / 0.1 s")
    if arch == "cnn_bn":
        assert ratio >= GOAL
