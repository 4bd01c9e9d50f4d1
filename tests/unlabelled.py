"""What an attack without target labels gets on a toy task."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from toys import context, domain, learnt

from ntbench.method import Attack, Context, accuracy
from ntbench.tasks.data import Split


def granted(count: int = 120, classes: int = 3, steps: int = 10, **options: Any) -> Context:
    """Return unlabelled images of the target and so many steps."""
    ctx = context(classes, classes=classes, **options)
    assert ctx.target is not None
    target = Split(ctx.target.x[:count], torch.full((count,), -1))
    return replace(ctx, source=None, source_val=None, target=target, steps=steps)


def regained(attack: Attack, steps: int = 30, classes: int = 7, shift: float = 0.7) -> float:
    """Return by how much an attack raises the accuracy on a shifted domain that the model half knows."""
    model, test = learnt(classes), domain(classes, seed=5, count=240, shift=shift)
    before = accuracy(model, test)
    for _ in attack.attack(model, granted(classes=classes, steps=steps, shift=shift)):
        pass
    return accuracy(model, test) - before
