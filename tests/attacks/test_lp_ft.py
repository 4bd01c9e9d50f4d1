"""Linear probing, then fine-tuning: the two phases against loops by hand, and what they spend."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F
from toys import TIMM, context, learnt, same

from ntbench.learn.meter import Meter
from ntbench.learn.models import build, encoded, head, pack
from ntbench.learn.scoring import accuracy
from ntbench.method import Context
from ntbench.registry import registry
from ntbench.types import Arch


def lp_ft(**params: Any) -> Any:
    return registry.get("attack", "lp_ft")(**params)


def granted(steps: int, **params: Any) -> Context:
    return replace(context(**params), steps=steps)


def moved(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in pack(model).items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize(
    ("steps", "share", "expected"), [(10, 0.5, 5), (10, 0.25, 2), (1, 0.5, 0), (3, 0.99, 2), (4, 0.0, 0)]
)
def test_the_head_trains_alone_for_its_share_of_the_steps(steps: int, share: float, expected: int) -> None:
    model = learnt()
    before, alone, count = pack(model), 0, 0
    for stage in lp_ft(head_share=share).attack(model, granted(steps)):
        assert stage is model
        alone += moved(model, before) == {"head.weight", "head.bias"}
        count += 1
    assert (alone, count) == (expected, steps)


@pytest.mark.parametrize("arch", TIMM, ids=lambda arch: arch.name)
def test_the_encoder_stands_still_at_first_and_moves_then(arch: Arch) -> None:
    model = build(arch, 3, seed=0)
    before = pack(model)
    names = {name for name, p in model.named_parameters() if p is head(model).weight or p is head(model).bias}
    stages = lp_ft(head_share=0.5).attack(model, granted(4, arch=arch))
    next(stages), next(stages)
    assert moved(model, before) == names
    next(stages)
    assert moved(model, before) > names


def test_probing_is_plain_training_on_features_in_eval_mode() -> None:
    ctx, model, twin = granted(10), learnt().train(), learnt()
    assert ctx.target is not None
    stages = lp_ft(head_share=0.5, head_lr=0.2, lr=1e-4, warmup=2, schedule="linear").attack(model, ctx)
    inputs, layer = encoded(twin, ctx.target.x), head(twin)
    velocity = [torch.zeros_like(p) for p in layer.parameters()]
    batches = replace(ctx.target, held=inputs).batches(32, ctx.generator("head batches"))
    for step in range(5):
        next(stages)
        x, y = next(batches)
        gradients = torch.autograd.grad(F.cross_entropy(layer(x), y), list(layer.parameters()))
        with torch.no_grad():
            for p, v, gradient in zip(layer.parameters(), velocity, gradients, strict=True):
                v.mul_(0.9).add_(gradient)
                p.sub_(0.2 * (1 - step / 5) * v)
        assert torch.allclose(head(model).weight, layer.weight, atol=1e-5)


@pytest.mark.parametrize("params", [{}, {"warmup": 2, "layer_decay": 0.7, "augment": "weak"}], ids=str)
def test_the_second_phase_is_fine_tuning_with_the_steps_that_are_left(params: dict[str, Any]) -> None:
    ctx, model = granted(8), learnt()
    stages = lp_ft(head_share=0.5, **params).attack(model, ctx)
    for _ in range(4):
        next(stages)
    twin = learnt()
    head(twin).load_state_dict(head(model).state_dict())
    list(stages)
    list(registry.get("attack", "finetune")(**params).attack(twin, granted(4)))
    assert same(pack(model), pack(twin))


def test_features_are_computed_once() -> None:
    ctx, model = granted(10), learnt()
    with Meter((3, 16, 16)) as meter:
        stages = lp_ft(head_share=0.5).attack(model, ctx)
        next(stages)
        first = meter.cost.flops
        next(stages)
        second = meter.cost.flops - first
    # A step of the head costs three passes through 256 x 3 weights for 32 samples.
    assert second == 2 * 2 * head(model).weight.numel() * 32
    assert first > 100 * second


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("init", ["keep", "reinit"])
def test_it_learns_the_target_within_the_budget(init: str, classes: int) -> None:
    ctx, model = granted(40, target_classes=classes), learnt()
    assert ctx.target is not None
    with Meter((3, 16, 16)) as meter:
        *_, adapted = lp_ft(init=init).attack(model, ctx)
    assert meter.cost.steps == 40 and meter.cost.samples == len(ctx.target) + 30 * 32
    assert accuracy(adapted, ctx.target) > 0.9 and head(adapted).out_features == classes


def test_a_new_head_forgets_the_released_one() -> None:
    found = []
    for scale in (1.0, 5.0):
        model = learnt()
        head(model).weight.data.mul_(scale)
        next(lp_ft(init="reinit").attack(model, granted(8)))
        found.append(head(model).weight.detach())
    assert torch.equal(*found)


@pytest.mark.parametrize("params", [{"head_share": 1.0}, {"head_share": -0.1}, {"head_lr": 0}, {"init": "x"}], ids=str)
def test_settings_outside_their_range_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        lp_ft(**params)


@pytest.mark.parametrize(
    ("optimizer", "given", "expected"), [("momentum", None, 0.03), ("adam", None, 0.003), ("adam", 0.2, 0.2)]
)
def test_the_head_has_a_rate_that_fits_its_optimizer(
    optimizer: str, given: float | None, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    module = import_module("ntbench.attacks.lp_ft")
    original = module.fit

    def spy(layer: nn.Module, data: Any, training: Any, generator: Any) -> Any:
        seen.append(training.lr)
        return original(layer, data, training, generator)

    monkeypatch.setattr(module, "fit", spy)
    next(lp_ft(optimizer=optimizer, head_lr=given).attack(learnt(), granted(8)))
    assert seen == [expected]
