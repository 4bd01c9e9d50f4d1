"""FixMatch: its loss against the paper's equations written out, what its batches hold, and what images add."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F
from toys import context, domain, learnt

from ntbench.method import Context
from ntbench.registry import registry
from ntbench.tasks.data import Split

UNKNOWN = -1


def attack(**params: Any) -> Any:
    return registry.get("attack", "fixmatch")(**params)


def granted(labelled: int = 120) -> Context:
    """Return a few labelled samples of the target, and all of it without labels."""
    whole = domain(3, seed=2, shift=0.4)
    few = Split(whole.held[:labelled], whole.y[:labelled])
    return replace(context(), target=few, unlabelled=replace(whole, y=torch.full_like(whole.y, UNKNOWN)))


def test_the_loss_is_that_of_the_paper() -> None:
    loss = attack(threshold=0.7, weight=0.5).fit_of(learnt(), granted()).loss
    labels = torch.tensor([2, 0])
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    weakly = torch.tensor([[5.0, 0, 0], [0.1, 0, 0], [0, 0, 2.0], [0, 0, 1.0]])
    strongly = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    q = weakly.softmax(1)
    sure = [i for i in range(4) if q[i].max() >= 0.7]
    assert sure == [0, 2]
    beside = sum(-strongly[i].log_softmax(0)[q[i].argmax()] for i in sure) / 4
    found = loss(torch.cat([logits, weakly, strongly]), torch.cat([labels, torch.full((8,), UNKNOWN)]))
    assert found == pytest.approx(float(F.cross_entropy(logits, labels) + 0.5 * beside))


def test_nothing_is_learnt_from_the_weak_view_of_an_image_or_from_one_that_is_in_doubt() -> None:
    loss = attack(threshold=0.9).fit_of(learnt(), granted()).loss
    logits = torch.tensor([[0.0, 0, 0], [9.0, 0, 0], [0.2, 0, 0], [1.0, 2, 3], [1.0, 2, 3]], requires_grad=True)
    loss(logits, torch.tensor([0, *[UNKNOWN] * 4])).backward()
    assert logits.grad is not None
    assert [bool(row.any()) for row in logits.grad] == [True, False, False, True, False]


def test_a_batch_holds_samples_and_two_views_of_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[type(attack()).__module__]
    monkeypatch.setattr(module, "weak", lambda x, generator: x)
    monkeypatch.setattr(module, "strong", lambda x, generator: -x)
    ctx = granted(labelled=40)
    assert ctx.target and ctx.unlabelled
    fit = attack(batch_size=8, ratio=2).fit_of(learnt(), ctx)
    x, y = next(fit.data.batches(8, torch.Generator().manual_seed(0)))
    (samples, weakly, strongly), labels = x.split((8, 16, 16)), y[:8]
    pairs = {(image.numpy().tobytes(), int(label)) for image, label in zip(ctx.target.x, ctx.target.y, strict=True)}
    assert {(image.numpy().tobytes(), int(label)) for image, label in zip(samples, labels, strict=True)} <= pairs
    known = {image.numpy().tobytes() for image in ctx.unlabelled.x}
    assert {image.numpy().tobytes() for image in weakly} <= known and (y[8:] == UNKNOWN).all()
    assert torch.equal(weakly, -strongly)


def test_images_without_labels_add_to_a_few_samples() -> None:
    def accuracy(weight: float) -> float:
        ctx = replace(granted(labelled=6), steps=30)
        method = attack(optimizer="adam", lr=3e-3, batch_size=16, threshold=0.6, weight=weight)
        *_, found = method.attack(ctx.fresh(3), ctx)
        test = domain(3, seed=5, count=300, shift=0.4)
        with torch.no_grad():
            return float((found.eval()(test.x).argmax(1) == test.y).float().mean())

    assert accuracy(1.0) > accuracy(0.0) + 0.03


def test_it_draws_its_own_views() -> None:
    with pytest.raises(ValidationError, match="augment"):
        attack(augment="weak")
