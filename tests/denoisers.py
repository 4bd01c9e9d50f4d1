"""A denoiser of a second, and what methods get that work on it."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from torch import nn
from toys import domain

from ntbench.learn.fit import fit
from ntbench.learn.models import build
from ntbench.method import Context
from ntbench.tasks.data import Split
from ntbench.tasks.denoising import Denoising
from ntbench.types import Arch, Training

UNET = Arch(name="unet2d", params={"block_out_channels": (8, 16)})
OBJECTIVE = Denoising(channels=1)


def images(seed: int, count: int = 40, shift: float = 0.0) -> Split:
    """Return grey images of 8 pixels."""
    data = domain(3, seed, count, shift, size=8)
    return Split(*OBJECTIVE.seen(data.x, data.y), objective=OBJECTIVE)


def granted(steps: int = 3, **other: Any) -> Context:
    """Return what a method gets that may see everything."""
    return Context(
        **{
            "source": images(1),
            "target": images(2, shift=0.4),
            "source_val": images(3),
            "target_val": None,
            "target_classes": 1,
            "steps": steps,
            "seed": 0,
            "device": torch.device("cpu"),
            "fresh": lambda outputs: build(UNET, outputs, seed=99),
            "objective": OBJECTIVE,
        }
        | other
    )


def released() -> nn.Module:
    """Return a copy of what has learnt the source a little."""
    return copy.deepcopy(_trained())


@functools.cache
@torch.enable_grad()
def _trained() -> nn.Module:
    model = build(UNET, 1, seed=0)
    for _ in fit(model, images(1), Training(optimizer="adam", lr=1e-2, steps=15, batch_size=16), torch.Generator()):
        pass
    return model
