"""How long a cell takes on this machine, from a few measured training steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch
from torch import nn

from ntbench.learn.fit import COOLDOWN, fit
from ntbench.learn.models import build
from ntbench.learn.optim import ends_anywhere
from ntbench.learn.scoring import accuracy
from ntbench.registry import registry
from ntbench.tasks.data import Split
from ntbench.tasks.objective import objective_of
from ntbench.types import Arch, Cell, ObjectiveSpec, Training

_STEPS = 10
_ENOUGH = 2.0
"""Seconds of steps or of scoring from which on nobody measures more of them."""
_SCORED, _FEW = 600, 20
"""Images whose scoring is told, and those that are enough, of a step as well, where more would take long."""


def seconds_per_cell(cell: Cell, device: str) -> float:
    """Return about how many seconds the training and scoring of a cell take in one thread, its protection aside."""
    attack = registry.create(cell.attack)
    batch = min(int(getattr(attack, "batch_size", 32)), cell.samples)
    recipe = cell.arch.model_dump_json(), cell.objective.model_dump_json()
    step, score = _measured(*recipe, cell.task.image_size, batch, device)
    ends = cell.budget.ends
    schedule = getattr(attack, "schedule", "cooldown")
    if attack.is_one_fit and ends_anywhere(schedule):
        return ends[-1] * step + len(ends) * score
    if attack.at_horizon_alone or schedule != "cooldown":
        return ends[-1] * step + score
    if not attack.is_one_fit:
        return sum(ends) * step + len(ends) * score
    return ((1 - COOLDOWN) * ends[-1] + COOLDOWN * sum(ends)) * step + len(ends) * score


@cache
def _measured(arch: str, objective: str, image_size: int, batch: int, device: str) -> tuple[float, float]:
    """Return the seconds of one training step and of scoring 600 images."""
    torch.set_num_threads(1)
    learnt = objective_of(ObjectiveSpec.model_validate_json(objective))
    model = build(Arch.model_validate_json(arch), learnt.outputs(10), seed=0).to(device)
    x, y = learnt.seen(torch.zeros(_SCORED, 3, image_size, image_size), torch.zeros(_SCORED, dtype=torch.long))
    data = Split(x, y, objective=learnt).to(device)
    clock = _clock(device)
    few = min(batch, _FEW)
    step = _seconds_to_step(model, data, few, 1, clock) * batch / few
    score = _seconds_to_score(model, data.subset(torch.arange(_FEW, device=device)), clock) * _SCORED / _FEW
    return (
        step if step > _ENOUGH else _seconds_to_step(model, data, batch, _STEPS, clock),
        score if score > _ENOUGH else _seconds_to_score(model, data, clock),
    )


def _clock(device: str) -> Callable[[], float]:
    """Return what tells the seconds of idle cores: the processor's own time, unless an accelerator does the work."""
    return time.process_time if device == "cpu" else time.perf_counter


def _seconds_to_step(model: nn.Module, data: Split, batch: int, most: int, clock: Callable[[], float]) -> float:
    """Return the mean of so many steps at most, after a first one that sets things up."""
    steps = fit(model, data, Training(steps=1 + most, batch_size=batch), torch.Generator().manual_seed(0))
    next(steps)
    start = trained = clock()
    taken = 0
    while trained - start < _ENOUGH and next(steps, None):
        taken, trained = taken + 1, clock()
    return (trained - start) / taken


def _seconds_to_score(model: nn.Module, data: Split, clock: Callable[[], float]) -> float:
    start = clock()
    accuracy(model, data)
    return clock() - start
