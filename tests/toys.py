"""Toy tasks on which a defense shows within a second what it does."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ntbench.learn.fit import fit
from ntbench.learn.models import build, pack
from ntbench.method import Context
from ntbench.registry import registry
from ntbench.tasks.data import Split
from ntbench.types import Arch, Training

Weights = dict[str, Tensor]

CNN = Arch(name="cnns_bn")
TIMM = (
    Arch(name="test_resnet"),
    Arch(name="test_efficientnet"),
    Arch(name="test_vit", params={"img_size": 16, "patch_size": 4}),
)
on_timm_networks = pytest.mark.parametrize("arch", TIMM, ids=lambda arch: arch.name)


def defense(name: str, **params: Any) -> Any:
    return registry.get("defense", name)(**params)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def domain(classes: int, seed: int, count: int = 120, shift: float = 0.0, size: int = 16) -> Split:
    """Return noisy copies of one pattern a class, with half of every pattern weakened or, by a shift of 1, inverted."""
    patterns = draw(classes, 3, size, size, seed=7)
    patterns[:, :, : size // 2] *= 1 - 2 * shift
    y = torch.arange(count) % classes
    x = 0.5 * patterns[y] + 0.5 * draw(count, 3, size, size, seed=seed)
    return Split(x.contiguous(memory_format=torch.channels_last), y)


def context(target_classes: int = 3, shift: float = 0.4, arch: Arch = CNN, classes: int = 3, size: int = 16) -> Context:
    """Return what a defense gets that may see everything."""
    return Context(
        source=domain(classes, seed=1, size=size),
        target=domain(target_classes, seed=2, shift=shift, size=size),
        source_val=domain(classes, seed=3, count=60, size=size),
        target_val=None,
        target_classes=target_classes,
        steps=10,
        seed=0,
        device=torch.device("cpu"),
        fresh=lambda k: build(arch, k, seed=99),
    )


def pretrained(ctx: Context, steps: int = 40) -> nn.Module:
    """Return what has learnt the source."""
    assert ctx.source is not None
    model = ctx.fresh(int(ctx.source.y.max()) + 1)
    for _ in fit(model, ctx.source, Training(lr=3e-3, steps=steps, batch_size=32), torch.Generator()):
        pass
    return model


@functools.cache
@torch.enable_grad()
def _learnt(classes: int) -> nn.Module:
    # Whoever asks first may do so where gradients are off.
    return pretrained(context(classes=classes))


def learnt(classes: int = 3) -> nn.Module:
    """Return a copy of what has learnt the source of `context`, trained once a process."""
    return copy.deepcopy(_learnt(classes))


def under_global_seeds(release: Callable[[], nn.Module]) -> list[Weights]:
    """Return what is released under two global seeds, of which a defense must know nothing."""
    found = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            found.append(pack(release()))
    return found


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
