"""MLAC: the best linear recoding, an adversary that learns, and a model that censors."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.optimize import minimize
from scipy.special import log_softmax
from torch import Tensor, nn
from torch.nn import functional as F
from toys import context, defense, domain, draw, learnt, on_timm_networks, same, under_global_seeds

from ntbench.learn.fit import fit
from ntbench.learn.models import head, pack
from ntbench.learn.scoring import accuracy
from ntbench.method import Context
from ntbench.types import Arch, Training

losses = import_module("ntbench.defenses._losses")
CHEAP: dict[str, Any] = {"loops": 2, "inner_steps": 3, "tolerance": 1.0}
CLASSES = 4


@pytest.fixture
def ctx() -> Context:
    return context(CLASSES, shift=1, classes=CLASSES)


@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_the_best_recoding_is_the_one_that_scipy_finds(scale: float) -> None:
    z, y = scale * draw(20, 3).double(), torch.arange(20) % 3

    def ce(w: np.ndarray) -> float:
        return -float(log_softmax(z.numpy() @ w.reshape(3, 3), axis=1)[np.arange(20), y.numpy()].mean())

    best = minimize(ce, np.zeros(9), bounds=[(-1, 1)] * 9, method="L-BFGS-B")
    w = losses.best_recoding(z, y, steps=200)
    assert w.abs().max() <= 1
    assert ce(w.numpy().ravel()) == pytest.approx(best.fun, abs=1e-6)
    assert losses.recoded_cross_entropy(z, y).item() == pytest.approx(best.fun, abs=2e-3)


def test_wrong_labels_that_tell_the_right_ones_are_seen_through_and_nothing_costs_log_k() -> None:
    y = torch.arange(12) % 4
    swapped = 20 * F.one_hot((y + 1) % 4, 4).float()
    assert F.cross_entropy(swapped, y) > 10
    assert losses.recoded_cross_entropy(swapped, y) < 1e-2
    assert losses.recoded_cross_entropy(torch.zeros(12, 4), y).item() == pytest.approx(math.log(4))
    assert losses.recoded_cross_entropy(1e3 * draw(12, 4), y) <= math.log(4)


def test_the_gradient_of_recoded_ce_is_that_of_the_minimum_itself() -> None:
    z, y, way = draw(20, 3).double(), torch.arange(20) % 3, draw(20, 3, seed=1).double()

    def minimum(z: Tensor) -> Tensor:
        return F.cross_entropy(z @ losses.best_recoding(z, y, steps=400), y)

    z.requires_grad_(True)
    slope = (torch.autograd.grad(minimum(z), z)[0] * way).sum().item()
    with torch.no_grad():
        numeric = (minimum(z + 1e-5 * way) - minimum(z - 1e-5 * way)).item() / 2e-5
    assert slope == pytest.approx(numeric, rel=1e-3)


@pytest.mark.parametrize("classes", [2, 5])
def test_the_capped_censor_is_bounded_and_passes_nothing_on_beyond_its_ceiling(classes: int) -> None:
    mlac = defense("mlac", censor="capped", ceiling=1.5)
    z = torch.zeros(2, classes)
    z[0, 1] = 50.0
    z.requires_grad_(True)
    loss = mlac._censored(z, torch.zeros(2, dtype=torch.int64))
    assert loss.item() == pytest.approx((1.5 + 1) * math.log(classes) / 2)
    gradient = torch.autograd.grad(loss, z)[0]
    assert not gradient[0].any()
    assert gradient[1].any()


def play(ctx: Context, log_rate: float, model: nn.Module, **params: Any) -> tuple[list[Tensor], float, float]:
    """Return the gradients on the adversary's head, on its rate, and the sum of those on the model."""
    assert ctx.target is not None
    mlac = defense("mlac", inner_steps=2, **params)
    classifier = copy.deepcopy(head(learnt(CLASSES)))
    rate = nn.Parameter(torch.tensor(log_rate))
    batches = ctx.target.batches(60, torch.Generator().manual_seed(0))
    gained, lost = mlac._play(model, classifier, rate, batches, torch.Generator().manual_seed(0))
    gained.backward()
    lost.backward()
    assert rate.grad is not None
    total = sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None)
    return [p.grad for p in classifier.parameters()], rate.grad.item(), total  # type: ignore[misc]


@pytest.mark.parametrize("adapt", ["head", "all"])
def test_the_adversary_finds_that_a_tiny_rate_is_too_low(ctx: Context, adapt: str) -> None:
    _, slope, _ = play(ctx, math.log(1e-3), learnt(CLASSES), adapt=adapt, censor="capped", ceiling=100.0)
    assert slope < 0


def test_the_rate_has_the_gradient_of_the_loss_along_the_path(ctx: Context) -> None:
    """Adam's first step is a sign: with one step on one and the same batch, a finite difference tells the slope."""
    assert ctx.target is not None
    model, x, y = learnt(CLASSES).train(), ctx.target.x[:60], ctx.target.y[:60]
    mlac = defense("mlac", inner_steps=1, censor="capped", ceiling=100.0, own_head=1.0)
    log_rate = nn.Parameter(torch.tensor(math.log(1e-3)))
    batches = iter([(x, y)] * 2)
    gained, _ = mlac._play(model, copy.deepcopy(head(model)), log_rate, batches, torch.Generator())
    (slope,) = torch.autograd.grad(gained, log_rate)

    def after(rate: float) -> float:
        clone = copy.deepcopy(model)
        gradients = torch.autograd.grad(F.cross_entropy(clone(x), y), list(clone.parameters()))
        with torch.no_grad():
            for p, g in zip(clone.parameters(), gradients, strict=True):
                p.sub_(rate * g / (g.abs() + 1e-8))
            return F.cross_entropy(clone(x), y).item()

    numeric = (after(1e-3 * math.exp(0.1)) - after(1e-3 * math.exp(-0.1))) / 0.2
    assert slope.item() == pytest.approx(numeric, rel=0.05)


def test_the_rate_learns_in_a_protection(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    module = import_module("ntbench.defenses.mlac")
    played = module.MLAC._play

    def noted(self: Any, model: nn.Module, classifier: nn.Linear, log_rate: Tensor, *rest: Any) -> Any:
        rates.append(log_rate.exp().item())
        return played(self, model, classifier, log_rate, *rest)

    monkeypatch.setattr(module.MLAC, "_play", noted)
    defense("mlac", **CHEAP | {"loops": 10, "inner_steps": 3}).protect(learnt(CLASSES), ctx)
    assert max(rates) / min(rates) > 1.3


def test_a_learned_head_learns_where_it_plays_and_the_models_own_where_not(ctx: Context) -> None:
    model = learnt(CLASSES)
    learned, _, _ = play(ctx, math.log(1e-3), model, own_head=0.0)
    assert all(g is not None and g.any() for g in learned)
    assert all(p.grad is None for p in head(model).parameters())
    model = learnt(CLASSES)
    learned, _, _ = play(ctx, math.log(1e-3), model, own_head=1.0)
    assert all(g is None for g in learned)
    assert all(p.grad is not None and p.grad.any() for p in head(model).parameters())


@pytest.mark.parametrize("adapt", ["head", "all"])
def test_the_encoder_is_censored_whatever_the_adversary_adapts(ctx: Context, adapt: str) -> None:
    model = learnt(CLASSES)
    before = pack(model)
    assert play(ctx, math.log(1e-3), model, adapt=adapt)[2] > 0
    assert same(before, pack(model))


VARIANTS = [{}, {"censor": "recoded"}, {"adapt": "head"}]


@pytest.mark.parametrize("params", VARIANTS)
def test_the_seed_of_the_context_alone_decides(ctx: Context, params: dict[str, Any]) -> None:
    ours = defense("mlac", **CHEAP, **params)
    released = under_global_seeds(lambda: ours.protect(learnt(CLASSES), ctx))
    assert same(*released)
    assert not same(released[0], pack(ours.protect(learnt(CLASSES), replace(ctx, seed=1))))


@pytest.mark.parametrize("classes", [3, 6])
@pytest.mark.parametrize("params", VARIANTS)
def test_other_target_classes_and_few_samples_are_no_obstacle(
    ctx: Context, params: dict[str, Any], classes: int
) -> None:
    few = replace(ctx, target=domain(classes, seed=2, count=2 * classes), target_classes=classes)
    released = defense("mlac", **CHEAP, **params).protect(learnt(CLASSES), few)
    assert head(released).out_features == CLASSES
    assert pack(released)


def test_it_does_not_release_what_the_source_did_not_survive(ctx: Context) -> None:
    wild = defense("mlac", **CHEAP | {"tolerance": 0.02}, lr=1.0, source_steps=0, repair_steps=0)
    with pytest.raises(ValueError, match="source accuracy on validation data"):
        wild.protect(learnt(CLASSES), ctx)


@on_timm_networks
def test_it_runs_on_timm_networks(arch: Arch) -> None:
    ctx = context(arch=arch)
    assert pack(defense("mlac", **CHEAP).protect(ctx.fresh(3), ctx))


@pytest.mark.parametrize("censor", ["recoded", "capped"])
def test_it_withstands_fine_tuning_better_than_no_defense(ctx: Context, censor: str) -> None:
    assert ctx.source_val is not None and ctx.target is not None
    start, found = accuracy(learnt(CLASSES), ctx.source_val), []
    mlac = defense("mlac", loops=12, inner_steps=8, censor=censor)
    for model in (learnt(CLASSES), mlac.protect(learnt(CLASSES), ctx)):
        assert accuracy(model, ctx.source_val) >= start - 0.02
        for _ in fit(model, ctx.target, Training(optimizer="momentum", lr=1e-2, steps=5), torch.Generator()):
            pass
        found.append(accuracy(model, domain(CLASSES, seed=5, count=200, shift=1)))
    assert found[1] < found[0] - 0.3


@pytest.mark.parametrize(
    "wrong", [{"censor": "mse"}, {"adapt": "body"}, {"own_head": 1.5}, {"inner_lr": 0}, {"strength": -1}]
)
def test_bad_hyper_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        defense("mlac", **wrong)
