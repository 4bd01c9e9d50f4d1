"""The share of a cell's time that is not forward, backward or optimizer.

Measured against a loop by hand that does nothing else: the same batches already cut, the same network, loss, optimizer
class, scoring forwards and number of steps, in the same process on one thread. What the cell takes longer is the
harness: reading weights, building the model, subsets, cutting batches, forking branches, the meter's hooks, schedules,
checks, counting hits, provenance.
"""

from __future__ import annotations

import os
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from research_code import adam_cells, measured, runner, seconds, threads
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ntbench.engine.bench import Bench
from ntbench.learn.models import build
from ntbench.learn.optim import create_optimizer
from ntbench.tasks.objective import SCORING_BATCH
from ntbench.types import Cell

ROUNDS = 15
GOAL = 0.15


def bare_loop(cell: Cell, model: nn.Module, batches: list[tuple[Tensor, Tensor]], scored: list[Tensor]) -> None:
    params = cell.attack.params
    optimizer = create_optimizer(model.parameters(), params["optimizer"], params["lr"])
    for step, (x, y) in enumerate(batches, 1):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        if step in cell.budget.ends:
            score(model, scored)


@torch.inference_mode()
def score(model: nn.Module, chunks: list[Tensor]) -> None:
    model.eval()
    for x in chunks:
        model(x)
    model.train()


@pytest.mark.parametrize("samples", [20, 600])
def test_the_harness_share_of_a_cell(benchmark: BenchmarkFixture, tmp_path: Path, samples: int) -> None:
    """The rounds of both alternate, and the fastest of each count: other processes only ever add time.

    The bare loop takes all steps that the cell pays for, its branches included, in one go.
    """
    [cell] = adam_cells([1e-3], samples)
    ours = runner(tmp_path)
    shares = Bench(cell, ours.device, ours.cache).shares
    stream = shares.subset.batches(cell.attack.params["batch_size"], torch.Generator().manual_seed(0))
    scored = [*shares.target.val.x.split(SCORING_BATCH), *shares.target.test.x.split(SCORING_BATCH)]
    bare: list[float] = []

    def bare_round() -> None:
        model = build(cell.arch, shares.source.classes, seed=0).train()
        bare.append(seconds(partial(bare_loop, cell, model, batches, scored)))

    with threads(1):
        batches = list(islice(stream, ours.run(cell).paid))
        whole = measured(benchmark, partial(ours.run, cell), ROUNDS, before=bare_round).min
    share = 1 - min(bare) / whole
    benchmark.extra_info.update(share=share, load=os.getloadavg()[0])
    print(
        f"\noverhead: {share:.1%} of a cell of {samples} samples is harness "
        f"({whole:.3f} s, bare loop {min(bare):.3f} s); load {os.getloadavg()[0]:.1f}"
    )
    assert share <= GOAL
