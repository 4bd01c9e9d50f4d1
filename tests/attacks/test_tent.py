"""Tent: what changes, what descends, and by which statistics a released model predicts."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toys import CNN, TIMM, context, learnt, on_timm_networks

from ntbench.learn.meter import Meter
from ntbench.learn.models import build
from ntbench.learn.scoring import accuracy
from ntbench.method import Context
from ntbench.registry import registry
from ntbench.types import Arch

NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


def tent(**params: Any) -> Any:
    return registry.get("attack", "tent")(**params)


def world(steps: int = 10, **shape: Any) -> Context:
    return replace(context(**shape), steps=steps)


def adapted(model: nn.Module, ctx: Context, **params: Any) -> nn.Module:
    last: nn.Module
    *_, last = tent(**params).attack(model, ctx)
    return last


def scales_and_shifts(model: nn.Module, kinds: tuple[type[nn.Module], ...] = NORMS) -> set[str]:
    modules = dict(model.named_modules())
    return {name for name, _ in model.named_parameters() if isinstance(modules[name.rpartition(".")[0]], kinds)}


@on_timm_networks
def test_only_scales_and_shifts_of_norms_change(arch: Arch) -> None:
    model = build(arch, 3, seed=0)
    before = copy.deepcopy(model.state_dict())
    after = adapted(model, world(arch=arch), lr=0.01)
    changed = {name for name, value in after.named_parameters() if not torch.equal(before[name], value)}
    norms = scales_and_shifts(model)
    assert changed <= norms and len(changed) > len(norms) / 2
    assert changed and all(name.rpartition(".")[2] in ("weight", "bias") for name in changed)


def test_batch_norms_are_preferred_to_other_norms() -> None:
    model: Any = build(CNN, 3, seed=0)
    model.blocks[0].append(nn.GroupNorm(4, 16))
    before = copy.deepcopy(model.state_dict())
    after = adapted(model, world(), lr=0.01)
    changed = {name for name, value in after.named_parameters() if not torch.equal(before[name], value)}
    assert changed == scales_and_shifts(model, (nn.BatchNorm2d,)) != scales_and_shifts(model)


def test_the_first_step_goes_down_the_gradient_of_the_entropy_under_batch_statistics() -> None:
    ctx, model = world(steps=1), learnt()
    assert ctx.target is not None
    twin = copy.deepcopy(model).train()
    x, _ = next(ctx.target.batches(32, ctx.generator("batches")))
    p = F.softmax(twin(x), dim=1)
    (-(p * p.log()).sum() / len(x)).backward()
    after = adapted(model, ctx, optimizer="sgd", lr=0.1)
    for name, parameter in twin.named_parameters():
        step = 0.1 * torch.as_tensor(parameter.grad) if name in scales_and_shifts(twin) else 0
        assert torch.allclose(after.get_parameter(name), parameter - step, atol=1e-6), name
    for name, buffer in twin.named_buffers():
        assert torch.allclose(after.get_buffer(name), buffer, atol=1e-6), name


def test_entropy_falls_and_accuracy_rises_on_the_target() -> None:
    ctx, model = world(steps=40, shift=1.0), learnt()
    assert ctx.target is not None
    before = accuracy(model, ctx.target)
    entropies = []
    for stage in tent(lr=0.01).attack(model, ctx):
        with torch.no_grad():
            entropies.append(torch.special.entr(stage(ctx.target.x).softmax(1)).sum(1).mean().item())
    assert entropies[-1] < 0.5 * entropies[0]
    assert accuracy(model, ctx.target) > before


def test_running_statistics_follow_the_target() -> None:
    ctx, model = world(steps=60), learnt()
    assert ctx.target is not None
    convolution, norm = (next(m for m in model.modules() if isinstance(m, k)) for k in (nn.Conv2d, nn.BatchNorm2d))
    seen = convolution(ctx.target.x).detach().transpose(0, 1).flatten(1)
    adapted(model, ctx)
    assert torch.allclose(torch.as_tensor(norm.running_mean), seen.mean(1), atol=0.05)
    assert torch.allclose(torch.as_tensor(norm.running_var), seen.var(1), rtol=0.1)


def test_dropout_stays_out_of_it() -> None:
    arch, found = Arch(name="test_efficientnet", params={"drop_rate": 0.5, "drop_path_rate": 0.5}), []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = adapted(build(arch, 3, seed=0), world(steps=3, arch=arch))
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*found)


@pytest.mark.parametrize("count", [1, 12])
def test_tiny_targets_will_do(count: int) -> None:
    ctx = world(steps=5)
    assert ctx.target is not None
    with Meter((3, 16, 16)) as meter:
        stages = list(tent().attack(learnt(), replace(ctx, target=ctx.target.subset(torch.arange(count)))))
    assert (len(stages), meter.cost.steps, meter.cost.samples) == (5, 5, 5 * count)


def test_a_step_takes_one_batch_of_samples() -> None:
    with Meter((3, 16, 16)) as meter:
        for step, _ in enumerate(tent(batch_size=64).attack(learnt(), world(steps=7)), start=1):
            assert meter.cost.steps == step
    assert (meter.cost.steps, meter.cost.samples) == (7, 7 * 64)


def test_nets_without_affine_norms_are_refused() -> None:
    model: Any = build(CNN, 3, seed=0)
    for block in model.blocks:
        block[1] = nn.Identity()
    assert tent().unfit(model) == "SmallCNN has no affine norm to train"
    assert tent().unfit(learnt()) == tent().unfit(build(TIMM[2], 3, seed=0)) == ""


def test_other_class_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="5"):
        next(tent().attack(build(TIMM[2], 3, seed=0), world(target_classes=5)))
