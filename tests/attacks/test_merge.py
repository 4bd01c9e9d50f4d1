"""The clean model, the average, and what both get of the budget."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from toys import context, learnt

from ntbench.learn.meter import Meter
from ntbench.learn.scoring import accuracy
from ntbench.registry import registry


def merge(**params: Any) -> Any:
    return registry.get("attack", "merge")(**params)


@pytest.mark.parametrize("target_classes", [3, 5])
def test_the_steps_of_both_phases_are_the_budget(target_classes: int) -> None:
    model, ctx = learnt(), context(target_classes)
    assert ctx.target is not None
    with Meter((3, 16, 16)) as meter:
        stages = [stage is model for stage in merge(share=0.4).attack(model, ctx)]
    assert stages == [False] * 4 + [True] * 6
    assert meter.cost.steps == ctx.steps and meter.cost.samples == 320 + len(ctx.target)
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, target_classes)


def test_the_clean_model_learns_the_source_and_nothing_of_the_released_one() -> None:
    ctx = context(5)
    assert ctx.source is not None
    found = []
    for released in (learnt(), ctx.fresh(3)):
        attack = merge(share=0.9, lr=1e-2).attack(released, ctx)
        *_, clean = [next(attack) for _ in range(9)]
        found.append(clean)
    assert accuracy(found[0], ctx.source) > 0.9
    assert all(torch.equal(p, q) for p, q in zip(found[0].parameters(), found[1].parameters(), strict=True))


def first_average(clean: float, share: float = 0.0) -> nn.Module:
    attack = merge(clean=clean, share=share, optimizer="sgd", lr=1e-50).attack(learnt(), context())
    return next(attack)  # type: ignore[no-any-return]


@pytest.mark.parametrize("clean", [0.0, 0.25, 1.0])
def test_parameters_are_the_average(clean: float) -> None:
    released, fresh = learnt(), context().fresh(3)
    for name, parameter in first_average(clean).named_parameters():
        expected = (1 - clean) * released.get_parameter(name) + clean * fresh.get_parameter(name)
        assert torch.allclose(parameter, expected, atol=1e-6)
