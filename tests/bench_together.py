"""Many small models trained at once against one after another, on the present device."""

from __future__ import annotations

import os

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from research_code import measured, seconds

from ntbench.engine.together import fit_together
from ntbench.learn.models import build
from ntbench.learn.train import Fit
from ntbench.tasks.data import Split
from ntbench.types import Arch, Training

MODELS = 16
STEPS = 30
ROUNDS = 3
on_an_accelerator = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no accelerator"),
    ],
)


def trainings(device: str) -> list[Fit]:
    """Return the same training, from as many initial weights and in as many orders."""
    shape, draws = (600, 3, 16, 16), torch.Generator().manual_seed(0)
    data = Split(torch.randn(shape, generator=draws), torch.arange(600) % 10).to(device)
    training = Training(optimizer="adam", lr=1e-3, schedule="linear", steps=STEPS, batch_size=32)
    arch = Arch(name="cnns_bn")
    return [
        Fit(build(arch, 10, seed).to(device), data, training, torch.Generator().manual_seed(seed))
        for seed in range(MODELS)
    ]


@pytest.mark.parametrize("device", ["cpu", on_an_accelerator])
def test_together_against_one_after_another(benchmark: BenchmarkFixture, device: str) -> None:
    """The goal is an accelerator's: a CPU runs grouped convolutions slower than as many plain ones."""

    def at_once() -> None:
        for _ in fit_together(trainings(device)):
            pass

    def in_turn() -> None:
        for fit in trainings(device):
            for _ in fit.run():
                pass

    in_turn()
    at_once()
    theirs: list[float] = []
    mine = measured(benchmark, at_once, ROUNDS, before=lambda: theirs.append(seconds(in_turn))).min
    ratio = min(theirs) / mine
    benchmark.extra_info.update(ratio=ratio, load=os.getloadavg()[0])
    print(
        f"{MODELS} models on {device}: {min(theirs):.2f} s one after another, {mine:.2f} s together: "
        f"{ratio:.2f} times as fast; load {os.getloadavg()[0]:.1f}"
    )
    assert device == "cpu" or ratio > 1
