"""What grows where a mask was planted, and what stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import context, learnt

from ntbench.registry import registry

FREEZING = {"optimizer": "sgd", "lr": 1e-50}  # one step of this changes no weight


def regrow(**params: Any) -> Any:
    return registry.get("attack", "regrow")(**params)


def pruned(share: float = 0.9) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a model with planted zeros, and where they are, by the names of the weights."""
    model, zeros = learnt(), {}
    for name, weight in model.named_parameters():
        if weight.ndim == 4:
            generator = torch.Generator().manual_seed(weight.numel())
            zeros[name] = torch.rand(weight.shape, generator=generator) < share
            weight.data.masked_fill_(zeros[name], 0.0)
    return model, zeros


def first(model: nn.Module, **params: Any) -> nn.Module:
    return next(regrow(**FREEZING | params).attack(model, context()))  # type: ignore[no-any-return]


@pytest.mark.parametrize("init", ["kaiming", "fresh"])
def test_zeros_grow_and_survivors_stay_bit_for_bit(init: str) -> None:
    model, zeros = pruned()
    before = {name: model.get_parameter(name).detach().clone() for name in zeros}
    found = first(model, init=init)
    for name, zero in zeros.items():
        weight = found.get_parameter(name)
        assert (weight[zero] != 0).all()
        assert torch.equal(weight[~zero], before[name][~zero])


def test_regrown_weights_are_of_the_size_asked_for() -> None:
    model, zeros = pruned()
    found = first(model, init="kaiming", scale=0.5)
    name = "blocks.2.0.weight"
    deviation = found.get_parameter(name).detach()[zeros[name]].std()
    assert float(deviation) == pytest.approx(0.5 * (2 / (32 * 9)) ** 0.5, rel=0.05)
    fresh = context().fresh(3).get_parameter(name)
    again, zeros = pruned()
    assert torch.equal(first(again, init="fresh", scale=1.0).get_parameter(name)[zeros[name]], fresh[zeros[name]])


def test_zeros_that_only_may_grow_are_zero_at_first_and_not_at_the_end() -> None:
    model, zeros = pruned()
    name = "blocks.2.0.weight"
    assert (first(model, init="zeros").get_parameter(name)[zeros[name]] == 0).all()
    model, zeros = pruned()
    *_, last = regrow(init="zeros").attack(model, context())
    assert (last.get_parameter(name)[zeros[name]] != 0).float().mean() > 0.9


def test_a_dead_channel_lives_again() -> None:
    model, _ = pruned(0.0)
    norm = model.get_submodule("blocks.0.1")
    assert isinstance(norm, nn.BatchNorm2d)
    alive = norm.weight[0].clone()
    norm.weight.data[1:3] = 0.0
    norm.bias.data[1:3] = 0.0
    first(model)
    assert norm.weight[1:3].tolist() == [1.0, 1.0] and norm.bias[1:3].tolist() == [0.0, 0.0]
    assert norm.weight[0] == alive


def test_boost_reaches_the_training() -> None:
    ends = []
    for boost in (1.0, 5.0):
        model, _ = pruned()
        ctx = replace(context(), steps=1)
        start = first(pruned()[0]).get_parameter("blocks.0.0.weight").detach()
        (end,) = regrow(optimizer="sgd", lr=0.1, boost=boost, schedule="constant").attack(model, ctx)
        ends.append(end.get_parameter("blocks.0.0.weight").detach() - start)
    assert torch.allclose(ends[1], 5 * ends[0], atol=1e-5) and ends[0].abs().max() > 1e-4


def test_boost_leaves_what_has_no_zeros() -> None:
    model, zeros = pruned()
    groups = regrow(lr=0.1, boost=3.0).fit_of(model, context()).parameters
    boosted = {id(model.get_parameter(name)) for name in zeros}
    assert [(group["lr"], {id(p) for p in group["params"]} == boosted) for group in groups] == [
        (0.1, False),
        (pytest.approx(0.3), True),
    ]


def test_only_masks_are_faced() -> None:
    ntp, sophon = (registry.get("defense", name)() for name in ("ntp", "sophon"))
    assert regrow().refuses(ntp, 10, 7) == ""
    assert regrow().refuses(sophon, 10, 10) == "sophon releases no zeros to regrow"
