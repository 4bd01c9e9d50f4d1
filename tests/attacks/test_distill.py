"""Distillation from a black box: the loss against SciPy, label spaces, and what the student takes on."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from torch import nn
from toys import context, draw, learnt

from ntbench.learn.models import BlackBox, pack
from ntbench.learn.scoring import accuracy
from ntbench.method import Context, Split
from ntbench.registry import registry

distill = import_module("ntbench.attacks.distill")


def granted(classes: int = 3, **changes: Any) -> Context:
    return replace(context(target_classes=classes), source=None, source_val=None, steps=40, **changes)


def student(ctx: Context, teacher: nn.Module | None = None, **params: Any) -> nn.Module:
    attack = registry.get("attack", "distill")(**params)
    *_, model = attack.attack(BlackBox(teacher or learnt()), ctx)
    return model  # type: ignore[no-any-return]


def unlabelled(ctx: Context) -> Context:
    assert ctx.target is not None
    return replace(ctx, target=Split(ctx.target.x, torch.zeros_like(ctx.target.y)))


def agreement(model: nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad():
        return float((model.eval()(x).argmax(1) == learnt().eval()(x).argmax(1)).float().mean())


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_divergence_is_scipys_times_the_square_of_the_temperature(temperature: float) -> None:
    teacher, pupil = draw(6, 5), draw(6, 5, seed=1)
    expected = entropy(*(softmax(z.numpy() / temperature, 1) for z in (teacher, pupil)), axis=1).mean()
    found = distill.soft_divergence(teacher, pupil, temperature).item()
    assert found == pytest.approx(temperature**2 * float(expected), rel=1e-4)


def test_answers_alone_make_the_student_agree_with_the_teacher() -> None:
    ctx = unlabelled(granted())
    assert ctx.target is not None
    x = ctx.target.x
    assert agreement(ctx.fresh(3), x) < 0.6
    assert agreement(student(ctx, weight=1.0), x) > 0.9


def test_without_answers_it_is_training_from_scratch_on_labels() -> None:
    ctx = granted()
    assert ctx.target is not None
    one, other = (student(ctx, teacher, weight=0.0) for teacher in (learnt(), ctx.fresh(3)))
    assert all(torch.equal(a, b) for a, b in zip(pack(one).values(), pack(other).values(), strict=True))
    assert accuracy(one, ctx.target) > 0.9


def test_a_second_head_answers_for_the_teacher_where_class_counts_differ() -> None:
    ctx = granted(classes=5)
    assert ctx.target is not None
    model = student(ctx)
    assert model.eval()(ctx.target.x[:2]).shape == (2, 5)
    assert accuracy(model, ctx.target) > 0.9
    alone = student(ctx, weight=0.0)
    assert not torch.equal(pack(model)["head.weight"], pack(alone)["head.weight"])


def test_features_learn_from_answers_through_the_second_head() -> None:
    ctx = granted(classes=5)
    fresh, taught = pack(ctx.fresh(5)), pack(student(ctx, weight=1.0))
    assert torch.equal(fresh["head.weight"], taught["head.weight"])
    assert not torch.equal(fresh["blocks.0.0.weight"], taught["blocks.0.0.weight"])


def test_the_two_headed_model_gives_both_logits_side_by_side() -> None:
    model, second = learnt().eval(), nn.Linear(256, 2)
    x = draw(4, 3, 16, 16)
    found = distill.TwoHeaded(model, second)(x).detach()
    assert torch.allclose(found[:, :3], model(x), atol=1e-6)
    inputs = model.forward_head(model.forward_features(x), pre_logits=True)  # type: ignore[operator]
    assert np.allclose(found[:, 3:].numpy(), second(inputs).detach().numpy(), atol=1e-6)
