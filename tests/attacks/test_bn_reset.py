"""Statistics of batch norms against exact moments, the new head, and the phase that trains it alone."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import nn
from toys import TIMM, context, draw, learnt

from ntbench.learn.models import build, pack
from ntbench.method import head
from ntbench.registry import registry

reestimate = import_module("ntbench.attacks._normalisation").reestimate
phases = import_module("ntbench.attacks._phases").phases


def bn_reset(**params: Any) -> Any:
    return registry.get("attack", "bn_reset")(**params)


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


@torch.no_grad()
def test_statistics_are_the_moments_of_the_target() -> None:
    model, target = learnt(), context().target
    assert target is not None
    usual, before = norms(model)[0].momentum, [p.clone() for p in model.parameters()]
    assert reestimate(model, target.x) == norms(model)
    seen = model.get_submodule("blocks.0.0")(target.x).transpose(0, 1).flatten(1)
    mean, variance = norms(model)[0].running_mean, norms(model)[0].running_var
    assert mean is not None and torch.allclose(mean, seen.mean(1), atol=1e-5)
    assert variance is not None and torch.allclose(variance, seen.var(1), rtol=1e-4)
    assert norms(model)[0].momentum == usual and not any(m.training for m in model.modules())
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


@torch.no_grad()
def test_every_batch_has_the_same_share_and_none_is_a_single_image() -> None:
    model = learnt()
    x = draw(201, 3, 16, 16) * torch.linspace(1, 5, 201)[:, None, None, None]
    reestimate(model, x)
    convolved = model.get_submodule("blocks.0.0")(x).transpose(0, 1)
    halves = [half.flatten(1).var(1) for half in (convolved[:, :101], convolved[:, 101:])]
    variance = norms(model)[0].running_var
    assert variance is not None and torch.allclose(variance, (halves[0] + halves[1]) / 2, rtol=1e-4)


def test_the_head_is_drawn_anew_and_the_encoder_is_kept() -> None:
    model, ctx = learnt(), context()
    before = pack(model)
    found = pack(next(bn_reset(optimizer="sgd", lr=1e-50).attack(model, ctx)))
    assert not torch.allclose(found["head.weight"], before["head.weight"], atol=1e-2)
    assert all(torch.equal(found[name], before[name]) for name in before if name.endswith(".0.weight"))


def test_the_probe_trains_the_head_alone() -> None:
    model, ctx = learnt(), context(5)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if "head" not in name}
    moved, drawn = [], []
    for stage in bn_reset(probe=0.35).attack(model, ctx):
        moved.append(any(not torch.equal(stage.get_parameter(name), p) for name, p in before.items()))
        drawn.append(head(stage).weight.detach().clone())
    assert moved == [False] * 3 + [True] * 7
    assert not torch.equal(drawn[0], drawn[2]) and drawn[0].shape[0] == 5


@pytest.mark.parametrize(("share", "steps"), [(0.0, (0, 7)), (0.5, (3, 4)), (0.99, (6, 1))])
def test_phases_share_out_every_step(share: float, steps: tuple[int, int]) -> None:
    ctx = replace(context(), steps=7)
    assert tuple(part.budget.steps for part in phases(ctx, share)) == steps
    assert ctx.steps == 7


def test_a_model_without_batch_norm_is_refused() -> None:
    model = build(TIMM[2], 3, seed=0)
    with pytest.raises(ValueError, match="no batch norm"):
        next(bn_reset().attack(model, context(arch=TIMM[2])))
