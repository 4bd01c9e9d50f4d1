"""Sharpness-aware fine-tuning: the gradient of the point above, by hand, and what a step costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from toys import context, learnt

from ntbench.learn.meter import Cost, Meter
from ntbench.learn.models import pack
from ntbench.method import Context
from ntbench.registry import registry


def attack(name: str = "sam", **params: Any) -> Any:
    return registry.get("attack", name)(**params)


def granted(steps: int) -> Context:
    return replace(context(), steps=steps)


def by_hand(model: nn.Module, ctx: Context, lr: float, rho: float, adaptive: bool) -> nn.Module:
    """Take plain gradient steps by the gradient at w + e, with e along the gradient at w and of length rho."""
    assert ctx.target is not None
    model.train()
    for _, (x, y) in zip(range(ctx.steps), ctx.target.batches(32, ctx.generator("batches")), strict=False):
        weights = [p.detach().clone() for p in model.parameters()]
        gradients = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
        sizes = [w.abs() if adaptive else torch.ones_like(w) for w in weights]
        length = torch.cat([(s * g).flatten() for s, g in zip(sizes, gradients, strict=True)]).norm()
        climbed = [w + rho * s**2 * g / length for w, s, g in zip(weights, sizes, gradients, strict=True)]
        names = [name for name, _ in model.named_parameters()]
        point = {name: w.requires_grad_() for name, w in zip(names, climbed, strict=True)}
        buffers = {name: b.clone() for name, b in model.named_buffers()}
        above = F.cross_entropy(functional_call(model, point | buffers, (x,)), y)
        with torch.no_grad():
            for p, w, g in zip(model.parameters(), weights, torch.autograd.grad(above, climbed), strict=True):
                p.copy_(w - lr * g)
    return model


@pytest.mark.parametrize(("rho", "adaptive"), [(0.5, False), (0.5, True)])
def test_a_step_takes_the_gradient_of_the_point_above(rho: float, adaptive: bool) -> None:
    ctx = granted(steps=3)
    params: dict[str, Any] = {"optimizer": "sgd", "lr": 0.1, "schedule": "constant"}
    *_, adapted = attack(rho=rho, adaptive=adaptive, **params).attack(learnt(), ctx)
    *_, plain = attack("finetune", **params).attack(learnt(), ctx)
    expected = pack(by_hand(learnt(), ctx, 0.1, rho, adaptive))
    for name, tensor in pack(adapted).items():
        assert torch.allclose(tensor, expected[name], atol=1e-5), name
    assert not torch.allclose(pack(adapted)["head.weight"], pack(plain)["head.weight"], atol=1e-4)


def test_without_a_climb_it_is_fine_tuning() -> None:
    """The second pass leaves running statistics alone too, or they would move twice a step."""
    *_, found = attack(rho=0.0, layer_decay=0.5).attack(learnt(), granted(6))
    *_, plain = attack("finetune", layer_decay=0.5).attack(learnt(), granted(6))
    assert all(torch.allclose(tensor, pack(plain)[name], atol=1e-6) for name, tensor in pack(found).items())


def test_a_step_costs_two_passes() -> None:
    def spent(name: str) -> Cost:
        with Meter((3, 16, 16)) as meter:
            list(attack(name).attack(learnt(), granted(4)))
        return meter.cost

    sam, plain = spent("sam"), spent("finetune")
    assert (sam.steps, sam.samples, sam.flops) == (4, 2 * plain.samples, 2 * plain.flops) and plain.flops > 0


@pytest.mark.parametrize("classes", [3, 5])
def test_what_is_handed_over_is_the_plain_model_with_a_head_that_fits(classes: int) -> None:
    model = learnt()
    *_, adapted = attack(optimizer="adam", lr=3e-3).attack(model, replace(context(target_classes=classes), steps=1))
    assert adapted is model and pack(adapted)["head.weight"].shape[0] == classes


@pytest.mark.parametrize("params", [{"rho": -0.1}, {"rho": "x"}, {"adaptiv": True}], ids=str)
def test_settings_outside_their_range_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        attack(**params)
