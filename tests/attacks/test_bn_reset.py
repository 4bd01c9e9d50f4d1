"""Statistics of batch norms against exact moments, how they stay, the new head, and phases."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import nn
from toys import TIMM, context, draw, learnt

from ntbench.learn.models import build, pack
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
    reestimate(model, target.x)
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
    model, ctx = learnt(), context(5)
    before = pack(model)
    found = pack(next(bn_reset(optimizer="sgd", lr=1e-50).attack(model, ctx)))
    assert found["head.weight"].shape[0] == 5
    assert all(torch.equal(found[name], before[name]) for name in before if name.endswith(".0.weight"))


def test_statistics_stay_while_all_weights_train() -> None:
    model, twin, ctx = learnt(), learnt(), context()
    assert ctx.target is not None
    reestimate(twin, ctx.target.x)
    fit = bn_reset().fit_of(model, ctx)
    for _ in fit.run():
        pass
    assert fit.adapted is model
    for name, buffer in twin.named_buffers():
        assert torch.equal(model.get_buffer(name), buffer), name
    assert all(not torch.equal(p, model.get_parameter(name)) for name, p in twin.named_parameters())


def test_training_normalises_by_the_statistics_that_stay() -> None:
    ctx, model = replace(context(), steps=1), learnt()
    assert ctx.target is not None
    fit = bn_reset(optimizer="sgd", lr=0.1).fit_of(model, ctx)
    twin = learnt()
    twin.load_state_dict(model.state_dict())
    x, y = next(ctx.target.batches(32, ctx.generator("batches")))
    nn.functional.cross_entropy(twin.eval()(x), y).backward()
    _, _, batches = fit.begin()
    assert not any(norm.training for norm in norms(model)) and model.training
    nn.functional.cross_entropy(fit.model(next(batches)[0]), y).backward()
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None and torch.allclose(p.grad, q.grad, atol=1e-5), name


@pytest.mark.parametrize(("share", "steps"), [(0.0, (0, 7)), (0.5, (3, 4)), (0.99, (6, 1))])
def test_phases_share_out_every_step(share: float, steps: tuple[int, int]) -> None:
    ctx = replace(context(), steps=7)
    assert tuple(part.steps for part in phases(ctx, share)) == steps


def test_a_model_without_batch_norm_is_refused() -> None:
    assert bn_reset().unfit(build(TIMM[2], 3, seed=0)) == "VisionTransformer has no batch norm"
    assert bn_reset().unfit(learnt()) == ""
