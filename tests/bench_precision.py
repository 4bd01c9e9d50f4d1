"""bfloat16 autocast in channels_last against float32: the time of a cell, and the accuracy that it ends at.

Nothing is asked of the time: processors without bfloat16 arithmetic emulate it.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from statistics import mean, stdev

import torch
from bench_table import figure
from pytest_benchmark.fixture import BenchmarkFixture
from research_code import adam_cells, measured, runner, seconds, threads

from ntbench.suite import load_suite
from ntbench.types import Cell

SEEDS = (0, 1, 2)
SIZE = 32
ROUNDS = 3
LEAST = 0.03
"""A difference of accuracies that three seeds do not tell from none, however close to each other they are."""


def cells_of(precision: str) -> list[Cell]:
    tasks = tuple(task.model_copy(update={"image_size": SIZE}) for task in load_suite("quick").tasks)
    return adam_cells([1e-3], arch="cnn_bn", seeds=SEEDS, tasks=tasks, precision=precision)


def test_bfloat16_against_float32(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Pretraining, the attack and its scoring are all in the precision of the cell; rounds of seed 0 alternate."""
    ours = runner(tmp_path)
    low, full = cells_of("bfloat16"), cells_of("float32")
    times: list[float] = []
    with threads(1):
        found = {name: [ours.run(cell) for cell in cells] for name, cells in (("bf16", low), ("fp32", full))}
        fast = measured(
            benchmark,
            partial(ours.run, low[0]),
            ROUNDS,
            before=lambda: times.append(seconds(partial(ours.run, full[0]))),
        ).min
    assert {result.status for results in found.values() for result in results} == {"ok"}
    reached = {name: [result.trajectory.test[-1] for result in results] for name, results in found.items()}
    ratio = min(times) / fast
    native = torch.backends.cpu.get_cpu_capability()
    benchmark.extra_info.update(ratio=ratio, processor=native, load=os.getloadavg()[0], **reached)
    print(
        f"\nprecision: float32 {min(times):.2f} s, bfloat16 {fast:.2f} s: {ratio:.2f} times faster ({native}); "
        f"test accuracies {reached}; load {os.getloadavg()[0]:.1f}"
    )
    figure(benchmark, "a cell in bfloat16", f"{ratio:.2f} times faster ({native})", "1.7 times on a VGG11")
    noise = (sum(stdev(values) ** 2 for values in reached.values()) / len(SEEDS)) ** 0.5
    assert abs(mean(reached["bf16"]) - mean(reached["fp32"])) <= max(2 * noise, LEAST)
