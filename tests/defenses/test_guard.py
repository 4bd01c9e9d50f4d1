"""The source guard that the defenses share."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from toys import same

from ntbench.learn.models import pack
from ntbench.tasks.data import Split

SourceGuard = import_module("ntbench.defenses._guard").SourceGuard
Unusable = import_module("ntbench.errors").UnusableError
DATA = Split(torch.eye(10), torch.arange(10))


@pytest.fixture
def model() -> nn.Module:
    """A network that is right on all of DATA."""
    layer = nn.Linear(10, 10, bias=False)
    nn.init.eye_(layer.weight)
    return layer


def wrong_on(model: Any, count: int) -> None:
    """Make the network right on all but `count` samples."""
    with torch.no_grad():
        model.weight.copy_(torch.eye(10))
        model.weight[:, :count] = torch.eye(10).roll(1, dims=0)[:, :count]


def guard(model: nn.Module, tolerance: float) -> Any:
    return SourceGuard(model, SimpleNamespace(source_val=DATA), tolerance)


def test_the_last_state_within_tolerance_comes_back(model: nn.Module) -> None:
    watch = guard(model, tolerance=0.2)
    held = []
    for count in (1, 2, 5):
        wrong_on(model, count)
        held.append((watch.holds(), model.state_dict()["weight"].clone()))
    assert [within for within, _ in held] == [True, True, False]
    watch.restore()
    assert torch.equal(model.state_dict()["weight"], held[1][1])


def test_a_lost_source_is_told_with_its_values_and_what_would_have_kept_it(model: nn.Module) -> None:
    watch = guard(model, tolerance=0.1)
    wrong_on(model, 4)
    assert not watch.holds()
    with pytest.raises(Unusable, match=r"0\.600 at best, 1\.000 before: a drop of 0\.400 .* or tolerance=0\.400"):
        watch.restore()


def test_insisting_leaves_the_weights_of_now_or_ends_the_protection(model: nn.Module) -> None:
    watch = guard(model, tolerance=0.2)
    wrong_on(model, 1)
    watch.insist()
    expected = torch.cat([torch.eye(10).roll(1, 0)[:, :1], torch.eye(10)[:, 1:]], 1)
    assert torch.equal(model.state_dict()["weight"], expected)
    fresh = SourceGuard(model, SimpleNamespace(source_val=DATA), 0.1, "more steps")
    wrong_on(model, 5)
    with pytest.raises(Unusable, match=r"0\.500 at best, .* where tolerance=0\.1; what keeps it: more steps, or"):
        fresh.insist()


def test_a_look_changes_neither_the_model_nor_random_states() -> None:
    layer = nn.Linear(10, 10)
    model = nn.Sequential(layer, nn.BatchNorm1d(10), nn.Dropout(0.5)).train()
    before, state = pack(model), torch.random.get_rng_state()
    guard(model, tolerance=1.0).insist()
    assert model.training and model[1].training
    assert same(before, pack(model))
    assert torch.equal(state, torch.random.get_rng_state())
