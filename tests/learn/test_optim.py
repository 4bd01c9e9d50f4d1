"""Optimizers and schedules mean what their names say."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import timm.optim
import torch
from learning import SMALL

from ntbench.errors import UserError
from ntbench.learn.models import build
from ntbench.learn.optim import SCHEDULES, check_optimizer, create_optimizer, create_schedule


def rates(name: str, steps: int, warmup: int = 0, lr: float = 1.0, epoch: int = 1) -> list[float]:
    optimizer = create_optimizer([torch.zeros(2, requires_grad=True)], "sgd", lr=lr)
    set_rate = create_schedule(optimizer, name, steps, warmup, epoch)
    found = []
    for step in range(1, steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        set_rate(step)
    return found


def test_weight_decay_reaches_biases_and_norms() -> None:
    model = build(SMALL, 10, seed=0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = create_optimizer(model.parameters(), "sgd", lr=0.5, weight_decay=0.2)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert all(torch.allclose(p, before[name] * 0.9) for name, p in model.named_parameters())
    assert "head.bias" in before and "blocks.0.1.weight" in before


@pytest.mark.parametrize(
    ("name", "momentum"),
    [("sgd", 0.0), ("momentum", 0.9), ("nesterov", 0.9), ("rmsprop", 0.0), ("rmsprop_momentum", 0.9)],
)
def test_momentum_is_there_where_the_name_says_so(name: str, momentum: float) -> None:
    group = create_optimizer([torch.zeros(2, requires_grad=True)], name, lr=0.1).param_groups[0]
    assert group["momentum"] == momentum and group["lr"] == 0.1
    assert group.get("nesterov", False) == (name == "nesterov")


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw"])
def test_the_plain_optimizers_are_torchs_fused_ones(name: str) -> None:
    optimizer = create_optimizer([torch.zeros(2, requires_grad=True)], name, lr=0.1)
    assert type(optimizer).__module__.startswith("torch.optim") and optimizer.defaults["fused"]


def test_every_optimizer_of_timm_is_known() -> None:
    for name in timm.optim.list_optimizers():
        check_optimizer(name)


@pytest.mark.parametrize(
    ("name", "closed"),
    [
        ("constant", lambda k, n: 1.0),
        ("cooldown", lambda k, n: 1.0),
        ("linear", lambda k, n: 1 - k / n),
        ("cosine", lambda k, n: (1 + math.cos(math.pi * k / n)) / 2),
    ],
)
@pytest.mark.parametrize("steps", [1, 2, 10, 37])
def test_schedules_without_warm_up(name: str, closed: Callable[[int, int], float], steps: int) -> None:
    assert rates(name, steps) == pytest.approx([closed(k, steps) for k in range(steps)], abs=1e-12)


@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize(("name", "every"), [("step every 1 epoch", 1), ("step every 4 epochs", 4)])
@pytest.mark.parametrize("steps", [7, 26])
def test_a_step_by_epoch_is_a_tenth_after_so_many_passes_whatever_the_budget(
    name: str, every: int, epoch: int, steps: int
) -> None:
    assert rates(name, steps, epoch=epoch) == pytest.approx([0.1 ** (k // (every * epoch)) for k in range(steps)])


@pytest.mark.parametrize("name", ["constant", "cooldown"])
def test_warm_up_rises_in_a_line_from_a_twenty_fifth(name: str) -> None:
    found = rates(name, 10, warmup=4)
    assert found == pytest.approx([1 / 25 + k / 4 * (1 - 1 / 25) for k in range(4)] + [1.0] * 6)
    linear = rates("linear", 10, warmup=4)
    assert linear[:4] == pytest.approx(found[:4])
    assert linear[4:] == pytest.approx([1 - k / 10 for k in range(4, 10)])


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("lr", [1.0, 1e-3])
def test_no_schedule_leaves_the_range_of_its_rate(name: str, lr: float) -> None:
    found = rates(name, 12, lr=lr)
    assert found[0] == lr and all(0 <= rate <= lr for rate in found)
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("name", ["kron", "kronw"])
def test_kron_says_what_it_needs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.optim.kron.has_opt_einsum", False)
    with pytest.raises(UserError, match=rf"'{name}' needs opt_einsum; pip install 'ntbench\[kron\]'"):
        create_optimizer([torch.zeros(2, requires_grad=True)], name, lr=0.1)


def test_unknown_names_are_told() -> None:
    parameter = torch.zeros(2, requires_grad=True)
    with pytest.raises(UserError, match="unknown optimizer 'adamm'; did you mean 'adam"):
        create_optimizer([parameter], "adamm", lr=0.1)
    optimizer = create_optimizer([parameter], "adam", lr=0.1)
    with pytest.raises(UserError, match="unknown schedule 'cosin'; did you mean 'cosine'"):
        create_schedule(optimizer, "cosin", 10)
    for name in ("step every 0 epochs", "step every epochs", "step every 3 epochs or so"):
        with pytest.raises(UserError, match="step every 10 epochs"):
            create_schedule(optimizer, name, 10)
