"""Optimizers and learning-rate schedules by name, with names that mean what they say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest.mock import patch

import timm.optim
import torch
from timm.scheduler import create_scheduler_v2
from torch import Tensor
from torch.optim.optimizer import Optimizer

from ntbench.errors import UserError, unknown

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]]
SCHEDULES = ("constant", "cooldown", "linear", "cosine", "step", "poly", "tanh")
BY_EPOCH = re.compile(r"step every ([1-9]\d*) epochs?")
"""A schedule that falls to a tenth after every so many passes over the samples, whatever the budget."""
OURS = ("rmsprop_momentum",)
"""Names beside those of timm: what timm calls `rmsprop`."""
KRON = ("kron", "kronc", "kronw")
"""PSGD with Kronecker factors."""
# Torch has these as one kernel for all parameters on every device.
FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)


def check_optimizer(name: str) -> None:
    """Raise UserError where neither timm's factory nor we know an optimizer of this name."""
    known = {*timm.optim.list_optimizers(), *OURS}
    if name not in known:
        raise unknown("optimizer", name, known)


def check_schedule(name: str) -> None:
    """Raise UserError where no schedule has this name."""
    if name not in SCHEDULES and not BY_EPOCH.fullmatch(name):
        raise unknown("schedule", name, (*SCHEDULES, "step every 10 epochs"))


def ends_anywhere(name: str) -> bool:
    """Return whether the rates of a schedule do not depend on how many steps a run has."""
    return name == "constant" or bool(BY_EPOCH.fullmatch(name))


def create_optimizer(
    parameters: Parameters, name: str, lr: float, weight_decay: float = 0.0, **options: Any
) -> Optimizer:
    """Build any optimizer of timm's factory over all given parameters, with names that mean what they say.

    `sgd` and `rmsprop` are plain, `momentum` and `rmsprop_momentum` have momentum 0.9, `nesterov` is Nesterov's (timm
    calls the last one `sgd`); weight decay reaches biases and norms too. Raises UserError on unknown names and on what
    cannot run here.
    """
    check_optimizer(name)
    building: AbstractContextManager[Any] = nullcontext()
    if name in KRON:
        check_kron(name)
        # Its draws are then a part of its state, to which training may go back.
        options = {"deterministic": True} | options
        # Compiled anew for every shape of a parameter it takes longer than a run.
        building = patch("timm.optim.kron.has_dynamo", new=False)
    if name == "sgd":
        name, options = "momentum", {"momentum": 0.0} | options
    if name == "rmsprop":
        # timm binds a momentum of 0.9, which is about ten times the rate that the label tells.
        options = {"momentum": 0.0} | options
    if name == "rmsprop_momentum":
        name = "rmsprop"
    if timm.optim.get_optimizer_class(name, bind_defaults=False) in FUSED:
        options = {"fused": True} | options
    with building:
        optimizer: Optimizer = timm.optim.create_optimizer_v2(
            list(parameters), opt=name, lr=lr, weight_decay=weight_decay, **options
        )
    return optimizer


def check_kron(name: str) -> None:
    """Raise UserError where opt_einsum is missing, without which a step on a convolution takes gigabytes."""
    if not timm.optim.kron.has_opt_einsum:
        raise UserError(f"optimizer {name!r} needs opt_einsum; pip install 'ntbench[kron]'")


def create_schedule(
    optimizer: Optimizer, name: str, steps: int, warmup: int = 0, epoch: int = 1
) -> Callable[[int], None]:
    """Return a function that sets the learning rates of a step; schedules are timm's, `linear` falls to 0.

    `constant` and `cooldown` stand still: `Fit.climb` takes the rate down before a budget ends. `step every N epochs`
    falls to a tenth after every N times `epoch` steps. Warm-up rises from a 25th of every group's own rate. Raises
    UserError on unknown names.
    """
    check_schedule(name)
    by_epoch = BY_EPOCH.fullmatch(name)
    still = name in ("constant", "cooldown")
    if still and not warmup:
        return lambda step: None
    kinds = {"linear": ("poly", {"decay_rate": 1.0})} | dict.fromkeys(
        ("constant", "cooldown"), ("step", {"decay_rate": 1.0})
    )
    kind, options = ("step", {}) if by_epoch else kinds.get(name, (name, {}))
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=kind,
        num_epochs=steps,
        decay_epochs=int(by_epoch[1]) * epoch if by_epoch else max(1, steps // 3),
        step_on_epochs=False,
        updates_per_epoch=1,
        **options,
    )
    rates = [group["lr"] for group in optimizer.param_groups]

    def set_rates(step: int) -> None:
        if step >= warmup:
            scheduler.step_update(step)
            return
        # timm's own warm-up starts all groups at one rate.
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 + 24 * step / warmup) / 25

    if warmup:
        set_rates(0)
    return set_rates
