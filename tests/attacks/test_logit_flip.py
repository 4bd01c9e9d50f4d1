"""A head that somebody has negated."""

from __future__ import annotations

from typing import Any

import torch
from toys import context, learnt

from ntbench.learn.scoring import accuracy
from ntbench.method import head
from ntbench.registry import registry


def logit_flip(**params: Any) -> Any:
    return registry.get("attack", "logit_flip")(**params)


def test_a_planted_flip_is_undone_at_the_first_step() -> None:
    model, ctx = learnt(), context()
    assert ctx.source_val is not None
    before = accuracy(model, ctx.source_val)
    for parameter in head(model).parameters():
        parameter.data.neg_()
    assert before > 0.9 and accuracy(model, ctx.source_val) < 0.1
    found = next(logit_flip(optimizer="sgd", lr=1e-50, schedule="constant").attack(model, ctx))
    # The images that BN's running statistics took in at that step are another domain's.
    assert accuracy(found, ctx.source_val) > before - 0.05


def test_nothing_but_the_head_is_touched_before_training() -> None:
    model, twin = learnt(), learnt()
    found = next(logit_flip(optimizer="sgd", lr=1e-50).attack(model, context()))
    for (name, parameter), old in zip(found.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(parameter, -old if name.startswith("head") else old)


def test_all_steps_are_taken_and_help() -> None:
    model, ctx = learnt(), context()
    assert ctx.target is not None
    stages = [accuracy(stage, ctx.target) for stage in logit_flip().attack(model, ctx)]
    assert len(stages) == ctx.steps and stages[-1] > stages[0] + 0.5


def test_a_head_of_other_classes_is_not_flipped() -> None:
    sophon = registry.get("defense", "sophon")()
    assert logit_flip().refuses(sophon, 10, 10) == ""
    assert "no head to flip" in logit_flip().refuses(sophon, 10, 7)
