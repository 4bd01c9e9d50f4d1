"""How long a cell takes on this machine, from a few measured training steps."""

from __future__ import annotations

import time
from functools import cache

import torch

from ntbench.learn.models import build
from ntbench.learn.train import accuracy, fit
from ntbench.registry import registry
from ntbench.tasks.data import Split
from ntbench.types import Arch, Cell, Training

_STEPS = 10


def seconds_per_cell(cell: Cell, device: str) -> float:
    """Return about how many seconds the training and scoring of a cell take in one thread, its protection aside."""
    batch = max(1, cell.budget.samples // cell.budget.steps)
    step, score = _measured(cell.arch.model_dump_json(), cell.task.image_size, batch, device)
    steps = cell.budget.steps * int(registry.create(cell.attack).times)
    return steps * step + len(cell.budget.scored) * score


@cache
def _measured(arch: str, image_size: int, batch: int, device: str) -> tuple[float, float]:
    """Return the seconds of one training step and of scoring 600 images."""
    torch.set_num_threads(1)
    model = build(Arch.model_validate_json(arch), 10, seed=0).to(device)
    data = Split(torch.zeros(600, 3, image_size, image_size), torch.zeros(600, dtype=torch.long)).to(device)
    steps = fit(model, data, Training(steps=_STEPS, batch_size=batch), torch.Generator().manual_seed(0))
    next(steps)
    start = time.perf_counter()
    for _ in steps:
        pass
    trained = time.perf_counter()
    accuracy(model, data)
    return (trained - start) / (_STEPS - 1), time.perf_counter() - trained
