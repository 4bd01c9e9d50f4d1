"""One cell against the same steps of research code, in one process."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from statistics import mean

import pytest
from bench_table import figure
from pytest_benchmark.fixture import BenchmarkFixture
from research_code import adam_cells, fastest, measured, runner, seconds, threads

ROUNDS = 5
GOAL = 2.0


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_cell_against_research_code(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Both sides have one process and as many torch threads; ours scores validation data on top. Rounds alternate."""
    [cell] = adam_cells([1e-3], schedule="constant")
    ours = runner(tmp_path)
    rival = fastest(ours, cell)
    with threads(rival.torch_threads):
        result = ours.run(cell)
    accuracies: list[float] = []
    theirs: list[float] = []

    def their_round() -> None:
        theirs.append(seconds(lambda: accuracies.append(rival.run(cell)[-1])))

    with threads(rival.torch_threads):
        mine = measured(benchmark, partial(ours.run, cell), ROUNDS, before=their_round).min
    ratio = min(theirs) / mine
    benchmark.extra_info.update(ratio=ratio, opponent=str(rival), load=os.getloadavg()[0])
    print(
        f"cell: ours {mine:.2f} s, research code {min(theirs):.2f} s ({rival}): {ratio:.1f} times faster; "
        f"test accuracy {result.trajectory.test[-1]:.3f} against {mean(accuracies):.3f}; load {os.getloadavg()[0]:.1f}"
    )
    figure(benchmark, "full cell against research code", f"{ratio:.1f} times faster", f"{GOAL} times")
    assert abs(result.trajectory.test[-1] - mean(accuracies)) < 0.04, "both sides must train equally well"
    assert ratio >= GOAL
