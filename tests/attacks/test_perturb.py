"""Sums of a model and a fresh one."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from toys import context, learnt

from ntbench.learn.scoring import accuracy
from ntbench.registry import registry

blend = import_module("ntbench.attacks._blending").blend


def perturb(**params: Any) -> Any:
    return registry.get("attack", "perturb")(**params)


@pytest.mark.parametrize("target_classes", [3, 5])
def test_parameters_are_the_weighted_sum(target_classes: int) -> None:
    model, old, ctx = learnt(), learnt(), context(target_classes)
    fresh = ctx.fresh(3)
    found = next(perturb(shrink=0.25, noise=2.0, optimizer="sgd", lr=1e-50).attack(model, ctx))
    for name, parameter in found.named_parameters():
        if target_classes == 3 or not name.startswith("head"):
            expected = 0.25 * old.get_parameter(name) + 2.0 * fresh.get_parameter(name)
            assert torch.allclose(parameter, expected, atol=1e-6)
    assert found(torch.zeros(2, 3, 16, 16)).shape == (2, target_classes)


def test_statistics_fit_the_sum() -> None:
    model, ctx = learnt(), context()
    assert ctx.target is not None
    blend(model, ctx.fresh(3), 1.0, 1.0, ctx.target.x)
    seen = model.get_submodule("blocks.0.0")(ctx.target.x).transpose(0, 1).flatten(1)
    mean = model.get_submodule("blocks.0.1").running_mean
    assert isinstance(mean, torch.Tensor) and torch.allclose(mean, seen.mean(1), atol=1e-5)


def test_without_shrinking_and_noise_the_model_stays() -> None:
    model, ctx = learnt(), context()
    assert ctx.source is not None
    before = accuracy(model, ctx.source)
    blend(model, ctx.fresh(3), 1.0, 0.0, ctx.source.x)
    assert accuracy(model, ctx.source) >= before - 0.02
    blend(model, ctx.fresh(3), 0.0, 1.0, ctx.source.x)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), ctx.fresh(3).parameters(), strict=True))


def test_the_authors_numbers_are_the_default() -> None:
    assert (perturb().shrink, perturb().noise) == (0.4, 0.1)
