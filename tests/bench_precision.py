"""bfloat16 autocast in channels_last against float32: the time of a cell, and the accuracy that it ends at.

Then the scores that attackers choose by, of a VGG11 in bfloat16 with its batch norms folded, against exact ones.

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

from ntbench.learn.models import build
from ntbench.learn.scoring import accuracy, validated
from ntbench.suite import load_suite
from ntbench.tasks.data import Split
from ntbench.types import Arch, Cell

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


def test_scores_to_choose_by_against_exact_scores(benchmark: BenchmarkFixture) -> None:
    """A VGG11 with batch norm on 32 pixels; copying and folding it are in the time, and rounds alternate."""
    model = build(Arch(name="vgg11_bn", params={"mlp_ratio": 0.01}), classes=10, seed=0)
    images = torch.randn(400, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    data = Split(images.contiguous(memory_format=torch.channels_last), torch.arange(400) % 10)
    times: list[float] = []
    with threads(1):
        scores = [validated(model, data, "bfloat16"), accuracy(model, data)]
        fast = measured(
            benchmark,
            partial(validated, model, data, "bfloat16"),
            ROUNDS,
            before=lambda: times.append(seconds(partial(accuracy, model, data))),
        ).min
    ratio, native = min(times) / fast, torch.backends.cpu.get_cpu_capability()
    benchmark.extra_info.update(ratio=ratio, processor=native, load=os.getloadavg()[0], scores=scores)
    figure(benchmark, "validation scored in bfloat16", f"{ratio:.2f} times faster ({native})", "1.5 times on a VGG11")
    assert abs(scores[0] - scores[1]) <= 0.01
