"""What fine-tuning attacks share: optimizers, schedules, one run for all budgets, views and the masks of zeros."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys import context, domain, learnt

from ntbench.learn.meter import Meter
from ntbench.learn.models import BlackBox, head, pack
from ntbench.learn.optim import SCHEDULES, create_optimizer, create_schedule
from ntbench.method import Context, Split
from ntbench.registry import registry

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
    layers = [list(m.parameters()) for m in (head(model), *[*model.get_submodule("blocks").children()][::-1])]
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


def ratios(schedule: str, warmup: int) -> list[float]:
    fit = finetune(optimizer="adam", lr=0.2, layer_decay=0.5).tuning(learnt(), granted(12))
    optimizer = create_optimizer(fit.parameters, "adam", lr=0.2)
    set_rate = create_schedule(optimizer, schedule, 12, warmup)
    seen = []
    for step in range(12):
        rates = [group["lr"] for group in optimizer.param_groups]
        seen += [late / early for early, late in pairwise(rates)]
        set_rate(step + 1)
    return seen


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_keep_the_ratios_of_the_layers(schedule: str) -> None:
    assert ratios(schedule, warmup=0) == pytest.approx([2.0] * 36)


def test_warm_up_keeps_the_ratios_of_the_layers() -> None:
    assert ratios("constant", warmup=4) == pytest.approx([2.0] * 36)


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


def test_tuning_may_train_a_part_on_other_data_at_rates_of_its_own() -> None:
    ctx, model = granted(steps=5), learnt()
    before = pack(model)
    other = domain(3, seed=9, count=8)
    layer, norm = model.get_parameter("blocks.1.0.weight"), model.get_parameter("blocks.1.1.bias")
    fit = finetune(layer_decay=0.5, lr=0.1).tuning(model, ctx, other, [layer, norm], factors={norm: 3.0})
    assert [group["lr"] for group in fit.parameters] == pytest.approx([0.1, 0.3])
    assert list(fit.run()) == [1, 2, 3, 4, 5] and fit.data is other
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"blocks.1.0.weight", "blocks.1.1.bias"}


def test_one_run_serves_every_budget() -> None:
    ends, found = (4, 8, 16), {}
    model, ctx = learnt(), granted(16)
    fit = finetune(optimizer="adam", lr=3e-3).fit_of(model, ctx)
    assert fit.training.schedule == "cooldown"
    for end in fit.climb(ends, Meter()):
        found[end] = loss(fit.adapted, ctx.target)
        fit.adapted.train()
    assert [*found] == [4, 8, 16] and found[4] > found[16]


FITS = (
    *("finetune", "perturb", "regrow", "rescale", "redraw", "flatten", "lora", "bn_reset", "logit_flip", "distill"),
    *("sam", "l2_sp", "fixmatch"),
)


@pytest.mark.parametrize("name", FITS)
def test_going_back_to_a_fork_leaves_no_trace(name: str) -> None:
    """What a run hands over at its end does not depend on the budgets on its way, which it went back from."""
    found = []
    for ends in ((2, 5, 20), (20,)):
        model = BlackBox(learnt()) if name == "distill" else learnt()
        ctx = replace(granted(20), source=None, unlabelled=domain(3, seed=4))
        fit = registry.get("attack", name)().fit_of(model, ctx)
        for _ in fit.climb(ends, Meter()):
            pass
        found.append(pack(fit.adapted))
    assert found[0].keys() == found[1].keys() == pack(learnt()).keys()
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_kron_learns_and_going_back_takes_its_draws_along() -> None:
    pytest.importorskip("opt_einsum")
    ctx, found = granted(20), []
    for ends in ((2, 5, 20), (20,)):
        fit = finetune(optimizer="kron", lr=1e-2).fit_of(model := learnt(), ctx)
        assert [*fit.climb(ends, Meter())] == [*ends]
        found.append(pack(model))
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())
    assert loss(model, ctx.target) < loss(learnt(), ctx.target) / 5


def test_muon_is_an_optimizer_like_any_other() -> None:
    ctx, model = granted(steps=30), learnt()
    before = loss(model, ctx.target)
    *_, adapted = finetune(optimizer="muon", lr=0.01).attack(model, ctx)
    assert loss(adapted, ctx.target) < before / 5


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
