"""L2-SP: the penalty's own gradient, where it pulls, and which head it pulls to zero."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from toys import context, learnt

from ntbench.learn.models import head, pack
from ntbench.registry import registry


def attack(**params: Any) -> Any:
    return registry.get("attack", "l2_sp")(**params)


def penalty(model: nn.Module, loss: Any, moved: float) -> tuple[float, dict[str, torch.Tensor]]:
    """Return what is added to the cross-entropy once all parameters moved, and its gradient by name."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(moved)
    logits = torch.full((2, head(model).out_features), 0.5)
    added = loss(logits, torch.tensor([0, 1])) - torch.log(torch.tensor(float(logits.shape[1])))
    names, parameters = zip(*model.named_parameters(), strict=True)
    return added.item(), dict(zip(names, torch.autograd.grad(added, parameters), strict=True))


@pytest.mark.parametrize(("init", "classes"), [("keep", 3), ("reinit", 3), ("keep", 5)])
def test_what_is_released_is_pulled_back_and_a_new_head_to_zero(init: str, classes: int) -> None:
    model = learnt()
    loss = attack(init=init, strength=0.6, head_decay=0.2).fit_of(model, context(target_classes=classes)).loss
    drawn = {name: p.detach().clone() for name, p in model.named_parameters()}
    added, gradients = penalty(model, loss, moved=0.1)
    new = {"head.weight", "head.bias"} if init == "reinit" or classes != 3 else set()
    for name, p in model.named_parameters():
        expected = 0.2 * p if name in new else torch.full_like(p, 0.6 * 0.1)
        assert torch.allclose(gradients[name], expected, atol=1e-6), name
    near = sum(drawn[name].numel() for name in drawn if name not in new)
    square = sum(float((drawn[name] + 0.1).square().sum()) for name in new)
    assert added == pytest.approx(0.3 * 0.01 * near + 0.1 * square, rel=1e-4)


def test_a_strong_pull_keeps_the_encoder_near_the_release() -> None:
    moved = []
    for strength in (0.0, 10.0):
        model, released = learnt(), pack(learnt())
        list(attack(strength=strength, optimizer="sgd", lr=0.05, schedule="constant").attack(model, context()))
        encoder = {name: p.detach() for name, p in model.named_parameters() if "head" not in name}
        moved.append(sum(float((p - released[name]).norm()) for name, p in encoder.items()))
    assert 0 < moved[1] < moved[0] / 2


def test_without_penalties_it_is_fine_tuning_on_a_new_head() -> None:
    ctx = replace(context(), steps=5)
    *_, found = attack(strength=0.0, head_decay=0.0).attack(learnt(), ctx)
    *_, plain = registry.get("attack", "finetune")(init="reinit").attack(learnt(), ctx)
    assert all(torch.allclose(tensor, pack(plain)[name], atol=1e-6) for name, tensor in pack(found).items())


@pytest.mark.parametrize("params", [{"strength": -1}, {"head_decay": -0.1}, {"init": "whole"}], ids=str)
def test_settings_outside_their_range_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        attack(**params)
