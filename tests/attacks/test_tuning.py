"""What fine-tuning attacks share: optimizers, schedules, rates by layer, views and the masks of zeros."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys import CNN, TIMM, context, domain, learnt, on_timm_networks

from ntbench.learn.models import build, head, pack
from ntbench.learn.optim import SCHEDULES, create_optimizer, create_schedule
from ntbench.method import Context, Split
from ntbench.registry import registry
from ntbench.types import Arch

tuning = import_module("ntbench.attacks._tuning")
RATES = {
    "sgd": 0.1,
    "momentum": 1e-2,
    "nesterov": 1e-2,
    "adam": 3e-3,
    "adamw": 3e-3,
    "adagrad": 1e-2,
    "adadelta": 1.0,
    "rmsprop": 1e-3,
}


def finetune(**params: Any) -> Any:
    return registry.get("attack", "finetune")(**params)


def granted(steps: int, target_classes: int = 3) -> Context:
    return replace(context(target_classes=target_classes, shift=1.0), steps=steps)


@torch.no_grad()
def loss(model: nn.Module, data: Split | None) -> float:
    assert data is not None
    return F.cross_entropy(model.eval()(data.x), data.y).item()


@pytest.mark.parametrize("optimizer", RATES)
def test_every_optimizer_of_the_papers_lowers_the_loss(optimizer: str) -> None:
    ctx, model = granted(steps=30), learnt()
    before = loss(model, ctx.target)
    *_, adapted = finetune(optimizer=optimizer, lr=RATES[optimizer]).attack(model, ctx)
    assert loss(adapted, ctx.target) < before / 5


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_lowers_the_loss_after_warm_up(schedule: str) -> None:
    ctx, model = granted(steps=30), learnt()
    before = loss(model, ctx.target)
    *_, adapted = finetune(schedule=schedule, warmup=5).attack(model, ctx)
    assert loss(adapted, ctx.target) < before / 5


def by_hand(model: nn.Module, ctx: Context, rates: list[float], decay: float = 1.0) -> dict[str, Tensor]:
    """Return the weights after plain gradient descent at closed-form rates, which fall from layer to layer."""
    assert ctx.target is not None
    batches = ctx.target.batches(32, ctx.generator("batches"))
    layers = [list(m.parameters(recurse=False)) for m in [*model.modules()][::-1] if list(m.parameters(recurse=False))]
    model.train()
    for rate, (x, y) in zip(rates, batches, strict=False):
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        with torch.no_grad():
            for depth, layer in enumerate(layers):
                for p in layer:
                    assert p.grad is not None
                    p.sub_(rate * decay**depth * p.grad)
    return pack(model)


@pytest.mark.parametrize(
    ("params", "rates"),
    [
        ({"schedule": "linear"}, [0.1 * (1 - k / 6) for k in range(6)]),
        ({"schedule": "constant", "warmup": 3}, [0.1 * (1 + 8 * k) / 25 for k in range(3)] + [0.1] * 3),
        ({"schedule": "constant", "layer_decay": 0.5}, [0.1] * 6),
        ({"schedule": "linear", "layer_decay": 0.5}, [0.1 * (1 - k / 6) for k in range(6)]),
        ({"schedule": "constant", "steps": 4}, [0.1] * 4),
        ({"schedule": "constant", "steps": 9}, [0.1] * 6),
    ],
    ids=str,
)
def test_tuning_is_gradient_descent_at_the_rates_of_step_and_layer(params: dict[str, Any], rates: list[float]) -> None:
    ctx = granted(steps=6)
    stages = list(finetune(optimizer="sgd", lr=0.1, **params).attack(model := learnt(), ctx))
    assert len(stages) == len(rates) and stages[-1] is model
    expected = by_hand(learnt(), ctx, rates, params.get("layer_decay", 1.0))
    for name, weights in pack(model).items():
        assert torch.allclose(weights, expected[name], atol=1e-5), name


def test_warm_up_keeps_to_the_rates_where_it_is_all_there_is() -> None:
    rates = [0.1 * (1 + 24 * k / 6) / 25 for k in range(6)]
    ctx, model = granted(steps=6), learnt()
    list(finetune(optimizer="sgd", lr=0.1, schedule="linear", warmup=6).attack(model, ctx))
    expected = by_hand(learnt(), ctx, rates)
    assert all(torch.allclose(weights, expected[name], atol=1e-5) for name, weights in pack(model).items())


def groups(arch: Arch, decay: float = 0.5) -> tuple[nn.Module, list[dict[str, Any]]]:
    model = build(arch, 3, seed=0)
    return model, tuning.layer_groups(model, list(model.parameters()), 0.2, decay)


def test_rates_fall_by_a_factor_from_layer_to_layer() -> None:
    model, found = groups(CNN)
    assert [group["lr"] for group in found] == pytest.approx([0.2 * 0.5**k for k in (6, 5, 4, 3, 2, 1, 0)])
    names = {id(p): name for name, p in model.named_parameters()}
    assert [names[id(group["params"][0])] for group in found][::6] == ["blocks.0.0.weight", "head.weight"]


@on_timm_networks
def test_every_parameter_is_in_one_group_and_the_head_in_the_last(arch: Arch) -> None:
    model, found = groups(arch)
    ids = [id(p) for group in found for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    assert {id(p) for p in found[-1]["params"]} == {id(p) for p in head(model).parameters()}
    assert found[-1]["lr"] == 0.2


def test_what_belongs_to_no_layer_is_nearest_to_the_input() -> None:
    model, found = groups(TIMM[2])
    first = {id(p) for p in found[0]["params"]}
    assert first == {id(p) for name, p in model.named_parameters() if name in ("cls_token", "pos_embed")} != set()


def test_layers_that_do_not_train_take_no_rate_away() -> None:
    model = build(CNN, 3, seed=0)
    chosen = [model.get_parameter("blocks.0.0.weight"), *head(model).parameters()]
    found = tuning.layer_groups(model, chosen, 0.2, 0.5)
    assert [(len(group["params"]), group["lr"]) for group in found] == [(1, pytest.approx(0.1)), (2, 0.2)]


def ratios(schedule: str, warmup: int) -> list[float]:
    _, found = groups(CNN)
    optimizer = create_optimizer(found, "adam", lr=0.2)
    set_rate = create_schedule(optimizer, schedule, 12, warmup)
    seen = []
    for step in range(12):
        rates = [group["lr"] for group in optimizer.param_groups]
        seen += [late / early for early, late in pairwise(rates)]
        set_rate(step + 1)
    return seen


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_keep_the_ratios_of_the_layers(schedule: str) -> None:
    assert ratios(schedule, warmup=0) == pytest.approx([2.0] * 72)


def test_warm_up_keeps_the_ratios_of_the_layers() -> None:
    assert ratios("constant", warmup=4) == pytest.approx([2.0] * 72)


@pytest.mark.parametrize("view", ["weak", "strong"])
def test_batches_hold_views_of_the_images_that_plain_batches_hold(view: str) -> None:
    data = domain(3, seed=2, count=40)
    data = Split(data.x.clamp(-1, 1), data.y)
    viewed = tuning.Viewed(data.x, data.y, view).batches(20, torch.Generator().manual_seed(1))
    plain = data.batches(20, torch.Generator().manual_seed(1))
    for _ in range(2):
        (x, y), (whole, labels) = next(viewed), next(plain)
        assert torch.equal(y, labels) and x.shape == whole.shape and x.abs().max() <= 1 + 1e-6
        assert (x != whole).flatten(1).any(1).float().mean() > 0.8


@pytest.mark.parametrize("view", ["weak", "strong"])
def test_views_are_drawn_anew_for_every_batch(view: str) -> None:
    data = domain(3, seed=2, count=1)
    batches = tuning.Viewed(data.x, data.y, view).batches(1, torch.Generator().manual_seed(1))
    assert len({tuple(next(batches)[0].flatten().tolist()) for _ in range(8)}) > 4


def test_augmentation_changes_what_is_learnt_and_repeats() -> None:
    found = []
    for view in ("none", "weak", "strong", "strong"):
        *_, adapted = finetune(augment=view).attack(learnt(), granted(steps=3))
        found.append(head(adapted).weight.detach())
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[1], found[2])
    assert torch.equal(found[2], found[3])


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_only_a_head_of_other_classes_is_drawn_anew(classes: int) -> None:
    ctx, model = granted(steps=1, target_classes=classes), learnt()
    old = head(model).weight.detach().clone()
    tuning.renew_misfit(model, ctx)
    assert head(model).out_features == classes
    assert torch.equal(head(model).weight, old) == (classes == 3)


def test_tuning_may_train_a_part_on_other_data_with_what_is_left() -> None:
    ctx, model = granted(steps=5), learnt()
    before = pack(model)
    other = domain(3, seed=9, count=8)
    layer = model.get_parameter("blocks.1.0.weight")
    stages = list(finetune(layer_decay=0.5).tune(model, ctx, other, [layer], spent=3))
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert len(stages) == 2 and moved == {"blocks.1.0.weight"}


def test_a_mask_clears_the_zeros_of_weights_and_no_others() -> None:
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 4.0]]))
        layer.bias.zero_()
    clear = tuning.zeros_of(layer)
    with torch.no_grad():
        layer.weight.add_(1.0)
        layer.bias.add_(1.0)
    clear()
    assert layer.weight.tolist() == [[0.0, 2.0, 3.0], [4.0, 0.0, 5.0]] and layer.bias.tolist() == [1.0, 1.0]
