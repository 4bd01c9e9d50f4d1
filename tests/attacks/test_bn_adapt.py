"""Statistics of batch norms, against means and variances that are computed over all images."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import TIMM, context, learnt

from ntbench.learn.meter import Meter
from ntbench.learn.models import build
from ntbench.learn.scoring import accuracy
from ntbench.method import Context
from ntbench.registry import registry
from ntbench.types import Arch


def bn_adapt(**params: Any) -> Any:
    return registry.get("attack", "bn_adapt")(**params)


def world(steps: int = 10, **shape: Any) -> Context:
    return replace(context(**shape), steps=steps)


def first_convolved(model: nn.Module, x: Tensor) -> Tensor:
    """Return what the first batch norm sees, [channels, values]."""
    convolution = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    seen: Tensor = convolution(x).detach()
    return seen.transpose(0, 1).flatten(1)


def first_norm(model: nn.Module) -> nn.BatchNorm2d:
    return next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def stages(ctx: Context, model: nn.Module, **params: Any) -> Iterator[tuple[Tensor, Tensor]]:
    for stage in bn_adapt(**params).attack(model, ctx):
        norm = first_norm(stage)
        assert norm.running_mean is not None and norm.running_var is not None
        yield norm.running_mean.clone(), norm.running_var.clone()


def test_one_batch_of_all_images_gives_their_exact_moments() -> None:
    ctx, model = world(steps=1), learnt()
    assert ctx.target is not None
    seen = first_convolved(model, ctx.target.x)
    ((mean, variance),) = stages(ctx, model, batch_size=1000)
    assert torch.allclose(mean, seen.mean(1), atol=1e-4)
    assert torch.allclose(variance, seen.var(1), rtol=1e-3)


def test_a_pass_in_batches_gives_the_exact_mean_and_the_mean_of_the_variances() -> None:
    ctx, model = world(steps=4), learnt()
    assert ctx.target is not None
    order = ctx.target.batches(30, ctx.generator("batches"))
    batches = [first_convolved(model, next(order)[0]) for _ in range(4)]
    whole = first_convolved(model, ctx.target.x)
    for count, (mean, variance) in enumerate(stages(ctx, model, batch_size=30), start=1):
        assert torch.allclose(mean, torch.stack([b.mean(1) for b in batches[:count]]).mean(0), atol=1e-4)
        assert torch.allclose(variance, torch.stack([b.var(1) for b in batches[:count]]).mean(0), rtol=1e-3)
    assert torch.allclose(mean, whole.mean(1), atol=1e-4)
    assert torch.allclose(variance, whole.var(1), rtol=0.05)


@pytest.mark.parametrize("arch", TIMM[:2], ids=lambda arch: arch.name)
def test_no_weight_changes_and_momenta_stay(arch: Arch) -> None:
    model = build(arch, 3, seed=0)
    before = copy.deepcopy(model)
    with Meter((3, 16, 16)) as meter:
        *_, adapted = bn_adapt().attack(model, world(steps=3, arch=arch))
    assert (meter.cost.steps, meter.cost.samples) == (0, 3 * 32) and meter.cost.flops > 0
    for old, new in zip(before.parameters(), adapted.parameters(), strict=True):
        assert torch.equal(old, new) and new.requires_grad
    was, now = ([m for m in net.modules() if isinstance(m, nn.BatchNorm2d)] for net in (before, adapted))
    for a, b in zip(was, now, strict=True):
        assert a.momentum == b.momentum
        assert not torch.equal(torch.as_tensor(a.running_mean), torch.as_tensor(b.running_mean))


def test_statistics_that_a_defender_has_spoilt_come_back() -> None:
    ctx, model = world(shift=0.0), learnt()
    assert ctx.target is not None
    known = accuracy(model, ctx.target)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        torch.as_tensor(norm.running_mean).add_(5)
        torch.as_tensor(norm.running_var).mul_(30)
    spoilt = accuracy(model, ctx.target)
    *_, adapted = bn_adapt().attack(model, ctx)
    assert spoilt < 0.5 < 0.9 < known and accuracy(adapted, ctx.target) > 0.9


def test_dropout_stays_out_of_it() -> None:
    found = []
    for seed in (1, 2):
        model = build(Arch(name="test_efficientnet", params={"drop_rate": 0.5, "drop_path_rate": 0.5}), 3, seed=0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            found.append([mean for mean, _ in stages(world(steps=2), model)][-1])
    assert torch.equal(*found)


@pytest.mark.parametrize("count", [1, 12])
def test_tiny_targets_will_do(count: int) -> None:
    ctx = world(steps=3)
    assert ctx.target is not None
    tiny = replace(ctx, target=ctx.target.subset(torch.arange(count)))
    assert len(list(stages(tiny, learnt()))) == 3


def test_nets_without_batch_norm_are_refused() -> None:
    assert bn_adapt().unfit(build(TIMM[2], 3, seed=0)) == "VisionTransformer has no batch norm"
    assert bn_adapt().unfit(learnt()) == ""


def test_other_class_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="5"):
        next(bn_adapt().attack(learnt(), world(target_classes=5)))
