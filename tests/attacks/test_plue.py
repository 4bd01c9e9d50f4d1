"""PLUE's losses and memories against explicit loops, and its way on toy tasks."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from toys import CNN, context, draw, learnt, on_timm_networks

from ntbench.learn.meter import Meter
from ntbench.learn.models import build, pack
from ntbench.method import Context
from ntbench.registry import registry
from ntbench.types import Arch

twins = import_module("ntbench.attacks._twin")


def plue(**params: Any) -> Any:
    return registry.get("attack", "plue")(**params)


def method() -> Any:
    return import_module(registry.get("attack", "plue").__module__)


VIEWS = 3  # a step shows


def world(steps: int = 10, **shape: Any) -> Context:
    return replace(context(**shape), steps=steps)


def test_certainty_falls_from_one_to_one_over_e() -> None:
    predictions = torch.tensor([[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0]])
    assert torch.allclose(method().certainty(predictions), torch.tensor([1, math.exp(-1), math.exp(-0.5)]))


@pytest.mark.parametrize("classes", [2, 7])
def test_negative_learning_is_minus_log_of_not_being_another_class(classes: int) -> None:
    logits, labels = 3 * draw(500, classes).double(), torch.arange(500) % classes
    found = method().negative_learning(logits, labels, torch.Generator().manual_seed(0))
    possible = -(1 - logits.softmax(1)).log()
    fits = torch.isclose(possible, found[:, None], rtol=1e-6).scatter(1, labels[:, None], False)
    assert fits.any(1).all()
    chosen = fits.int().argmax(1)
    counts = torch.bincount((chosen - labels) % classes, minlength=classes)[1:]
    assert counts.min() > 0.7 * 500 / (classes - 1)


def test_negative_learning_stays_finite_where_the_complement_is_certain() -> None:
    logits = torch.tensor([[0.0, 90.0]], requires_grad=True)
    loss = method().negative_learning(logits, torch.tensor([0]), torch.Generator())
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert torch.allclose(loss, torch.tensor([90.0])) and torch.isfinite(gradient).all()


def test_labels_are_remembered_over_the_latest_visits() -> None:
    labels = torch.full((5, 3), -1)
    visits: dict[int, list[int]] = {image: [] for image in range(5)}
    for step in range(12):
        own = torch.randint(5, (3,), generator=torch.Generator().manual_seed(step))
        found = torch.randint(4, (3,), generator=torch.Generator().manual_seed(99 + step))
        method().remember(labels, own, found)
        for image in set(own.tolist()):
            visits[image].insert(0, int(found[own.tolist().index(image)]))
    assert labels.tolist() == [[*seen, -1, -1, -1][:3] for seen in visits.values()]


def test_pairs_that_shared_a_label_at_one_visit_are_found() -> None:
    labels, others = (torch.randint(-1, 4, (n, 3), generator=torch.Generator().manual_seed(n)) for n in (20, 30))
    found = method().shared(labels, others)
    for i, mine in enumerate(labels.tolist()):
        for j, yours in enumerate(others.tolist()):
            assert found[i, j] == any(a == b >= 0 for a, b in zip(mine, yours, strict=True))
    assert found.any() and not found.all()


@pytest.mark.parametrize(("reference", "count"), [(False, 10), (True, 1)])
def test_the_public_slip_votes_with_one_neighbour(reference: bool, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    original = twins.neighbours

    def spy(queries: Any, bank: Any, count: int, own: Any = None) -> Any:
        asked.append((count, original(queries, bank, count, own).shape[1]))
        return original(queries, bank, count, own)

    monkeypatch.setattr(twins, "neighbours", spy)
    list(plue(reference_neighbours=reference).attack(learnt(), world(steps=3)))
    assert asked == [(count, count)] * 3


@pytest.mark.parametrize("count", [1, 2, 12])
def test_tiny_targets_will_do(count: int) -> None:
    ctx = world(steps=8)
    assert ctx.target is not None
    with Meter((3, 16, 16)) as meter:
        stages = list(plue().attack(learnt(), replace(ctx, target=ctx.target.subset(torch.arange(count)))))
    assert (len(stages), meter.cost.steps, meter.cost.samples) == (8, 8, VIEWS * 8 * count + count)
    pack(stages[-1])


@on_timm_networks
def test_it_runs_on_timm_networks_within_the_budget(arch: Arch) -> None:
    with Meter((3, 16, 16)) as meter:
        for step, adapted in enumerate(plue().attack(build(arch, 3, seed=0), world(steps=3, arch=arch)), start=1):
            assert meter.cost.steps == step
            pack(adapted)
    assert meter.cost.samples >= 3 * 32


def test_other_class_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="5"):
        next(plue().attack(build(CNN, 3, seed=0), world(target_classes=5)))
