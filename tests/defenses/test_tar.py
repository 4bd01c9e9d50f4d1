"""TAR: late entropy of drawn attackers, and a source that keeps its features."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import entropy
from toys import context, defense, domain, draw, learnt, on_timm_networks, same, under_global_seeds

from ntbench.learn.fit import fit
from ntbench.learn.models import features, head, pack
from ntbench.learn.optim import create_optimizer
from ntbench.learn.scoring import accuracy
from ntbench.method import Context
from ntbench.types import Arch, Training

late_weights = import_module("ntbench.defenses.tar").late_weights
negative_entropy = import_module("ntbench.defenses._losses").negative_entropy
meta = import_module("ntbench.defenses._meta")
CHEAP: dict[str, Any] = {"loops": 2, "inner_steps": (2, 4), "every": 2, "tolerance": 1.0}
CLASSES = 4


@pytest.fixture
def ctx() -> Context:
    return context(CLASSES, shift=1, classes=CLASSES)


@pytest.mark.parametrize("classes", [2, 7])
def test_negative_entropy_is_that_of_scipy_and_stays_finite(classes: int) -> None:
    z = draw(5, classes)
    assert negative_entropy(z).item() == pytest.approx(-entropy(z.softmax(1).numpy(), axis=1).mean(), rel=1e-5)
    assert negative_entropy(torch.zeros(3, classes)).item() == pytest.approx(-math.log(classes))
    assert negative_entropy(torch.tensor([[1e4, 0.0, -1e4]])).item() == 0


def test_late_weights_are_the_public_ones_up_to_their_sum() -> None:
    public = np.array([math.exp(0.0625 * (i - 63)) for i in range(64) if (i + 1) % 4 == 0])
    assert late_weights(64, 4, 4.0) == pytest.approx(list(public / public.sum()))
    assert late_weights(10, 4, 0.0) == [0.5, 0.5]


def test_only_every_mth_step_asks_a_held_out_batch_after_the_attackers_own_steps() -> None:
    model, mine = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    mine.load_state_dict(model.state_dict())
    train, held_out = [[(draw(6, 3, seed=s + o), torch.arange(6) % 2) for s in range(6)] for o in (0, 50)]
    found = list(
        meta.attack_steps(
            model,
            [model.weight],
            create_optimizer(model.parameters(), "sgd", 0.5),
            iter(train),
            iter(held_out),
            6,
            lambda z, _: negative_entropy(z),
            3,
        )
    )
    for step, (x, y) in enumerate(train, start=1):
        # CE of a linear model, with its derivatives written out.
        error = (mine(x).softmax(1) - torch.nn.functional.one_hot(y, 2)).detach() / len(x)
        with torch.no_grad():
            mine.weight.sub_(0.5 * error.T @ x)
            mine.bias.sub_(0.5 * error.sum(0))
        if step % 3 == 0:
            expected = torch.autograd.grad(negative_entropy(mine(held_out[step // 3 - 1][0])), mine.weight)[0]
            assert torch.allclose(found[step // 3 - 1][0], expected, atol=1e-6)
    assert len(found) == 2


def test_the_linear_loss_has_exactly_the_gradients_it_was_given() -> None:
    parameters = [draw(3, 2).requires_grad_(True), draw(4, seed=1).requires_grad_(True)]
    wanted = [draw(3, 2, seed=2), draw(4, seed=3)]
    found = torch.autograd.grad(meta.linear(parameters, wanted), parameters)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_retaining_costs_nothing_beyond_ce_before_the_model_moves(ctx: Context) -> None:
    assert ctx.source is not None
    model, other = learnt(CLASSES).eval(), learnt(CLASSES).eval()
    x, y = ctx.source.x[:16], ctx.source.y[:16]
    tar = defense("tar", retain=2.0)
    loss = tar._retain_loss(model, other, x, y)
    assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(model(x), y).item(), abs=1e-5)
    with torch.no_grad():
        next(p for p in reversed(list(other.parameters())) if p.ndim == 4).mul_(-1)
    length = features(other, x).pow(2).sum(1).sqrt().mean()
    gap = (features(model, x) - features(other, x)).pow(2).sum(1).sqrt().mean() / length
    assert (tar._retain_loss(model, other, x, y) - loss).item() == pytest.approx(2 * gap.item(), rel=1e-4)


def test_a_stronger_distance_term_keeps_features_closer(ctx: Context) -> None:
    assert ctx.source is not None
    start = features(learnt(CLASSES).eval(), ctx.source.x)
    moved = [
        (features(defense("tar", **CHEAP, retain=r).protect(learnt(CLASSES), ctx).eval(), ctx.source.x) - start).norm()
        for r in (0.0, 3.0)
    ]
    assert moved[1] < 0.8 * moved[0]


@pytest.mark.parametrize("classes", [3, 6])
def test_other_target_classes_and_few_samples_are_no_obstacle(ctx: Context, classes: int) -> None:
    few = replace(ctx, target=domain(classes, seed=2, count=2 * classes), target_classes=classes)
    released = defense("tar", **CHEAP).protect(learnt(CLASSES), few)
    assert head(released).out_features == CLASSES
    assert pack(released)


def test_the_seed_of_the_context_alone_decides(ctx: Context) -> None:
    released = under_global_seeds(lambda: defense("tar", **CHEAP).protect(learnt(CLASSES), ctx))
    assert same(*released)
    assert not same(released[0], pack(defense("tar", **CHEAP).protect(learnt(CLASSES), replace(ctx, seed=1))))


def test_it_does_not_release_what_the_source_did_not_survive(ctx: Context) -> None:
    wild = defense("tar", **CHEAP | {"tolerance": 0.02}, lr=1.0, retain_steps=0, repair_steps=0)
    with pytest.raises(ValueError, match="source accuracy on validation data"):
        wild.protect(learnt(CLASSES), ctx)


@on_timm_networks
def test_it_runs_on_timm_networks(arch: Arch) -> None:
    ctx = context(arch=arch)
    assert pack(defense("tar", **CHEAP).protect(ctx.fresh(3), ctx))


def test_it_withstands_fine_tuning_better_than_no_defense(ctx: Context) -> None:
    assert ctx.source_val is not None and ctx.target is not None
    start, found = accuracy(learnt(CLASSES), ctx.source_val), []
    tar = defense("tar", loops=15, inner_steps=(6, 12), every=2)
    for model in (learnt(CLASSES), tar.protect(learnt(CLASSES), ctx)):
        assert accuracy(model, ctx.source_val) >= start - 0.02
        for _ in fit(model, ctx.target, Training(optimizer="momentum", lr=1e-2, steps=5), torch.Generator()):
            pass
        found.append(accuracy(model, domain(CLASSES, seed=5, count=200, shift=1)))
    assert found[1] < found[0] - 0.3


@pytest.mark.parametrize(
    "wrong",
    [
        {"inner_steps": (2, 8), "every": 4},
        {"inner_steps": (9, 8)},
        {"attackers": [["adam", 1e-2, 1e-3]]},
        {"attackers": [["no_such_optimizer", 1e-3, 1e-2]]},
        {"attackers": []},
        {"held_out": 1.0},
        {"growth": -1},
    ],
)
def test_bad_hyper_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        defense("tar", **wrong)
