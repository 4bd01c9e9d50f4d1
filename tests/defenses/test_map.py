"""MAP: the straight-through mask, its bounded loss, and what is released."""

from __future__ import annotations

import copy
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F
from toys import context, defense, domain, on_timm_networks, pretrained, under_global_seeds

from ntbench.learn.models import head, pack
from ntbench.learn.scoring import accuracy
from ntbench.method import Context
from ntbench.types import Arch

straight_through = import_module("ntbench.defenses._straight_through")
encoder_weights = import_module("ntbench.defenses._pruning").encoder_weights
QUICK: dict[str, Any] = {"rounds": 3, "steps": 5, "head_steps": 20, "tolerance": 1.0}


def protect(model: nn.Module, ctx: Context, **params: Any) -> nn.Module:
    released: nn.Module = defense("map", **QUICK | params).protect(copy.deepcopy(model), ctx)
    return released


def test_masks_are_hard_and_pass_gradients_on() -> None:
    scores = torch.tensor([0.1, 0.5, 0.50001, 7.0, -3.0], requires_grad=True)
    mask = straight_through.binary(scores, 0.5)
    assert mask.tolist() == [0.0, 0.0, 1.0, 1.0, 0.0]
    (mask * torch.arange(5.0)).sum().backward()
    assert scores.grad is not None and scores.grad.tolist() == [0, 1, 2, 3, 4]


def test_a_score_gets_the_gradient_of_the_masked_weight_times_the_weight() -> None:
    ctx = context()
    model, (x, y) = ctx.fresh(3).eval(), (domain(3, 4).x[:8], domain(3, 4).y[:8])
    names = [n for n, p in model.named_parameters() if any(p is w for w in encoder_weights(model))]
    scores = {n: torch.rand(model.get_parameter(n).shape, generator=torch.Generator().manual_seed(1)) for n in names}
    kept = {n: model.get_parameter(n) * straight_through.binary(a.requires_grad_(), 0.5) for n, a in scores.items()}
    logits = head(model)(straight_through.features_with(model, kept, x))
    found = torch.autograd.grad(F.cross_entropy(logits, y), list(scores.values()))

    masked = copy.deepcopy(model)
    with torch.no_grad():
        for n in names:
            masked.get_parameter(n).mul_(scores[n] > 0.5)
    torch.testing.assert_close(logits, masked(x))
    true = torch.autograd.grad(F.cross_entropy(masked(x), y), [masked.get_parameter(n) for n in names])
    for n, score, weight in zip(names, found, true, strict=True):
        torch.testing.assert_close(score, weight * model.get_parameter(n))


def test_the_bound_holds_for_samples_or_for_the_batch() -> None:
    losses = torch.tensor([0.0, 1.0, 2.0, 100.0])
    assert defense("map", weight=0.5, ceiling=2.0)._harm(losses).item() == (0 + 0.5 + 1 + 2) / 4
    assert defense("map", weight=0.5, ceiling=2.0, bound="batch")._harm(losses).item() == 2.0
    assert defense("map", weight=0.5, ceiling=50.0, bound="batch")._harm(losses).item() == 0.5 * 103 / 4


@pytest.mark.parametrize(("classes", "shift"), [(5, 0.0), (3, 1.0), (2, 0.0)])
def test_released_weights_are_the_frozen_ones_or_zero(classes: int, shift: float) -> None:
    ctx = context(classes, shift)
    before = pretrained(ctx)
    after = protect(before, ctx)
    masked = {n for n, p in before.named_parameters() if any(p is w for w in encoder_weights(before))}
    old, new = pack(before), pack(after)
    for name in old:
        if name in masked:
            assert torch.equal(new[name], torch.where(new[name] == 0, new[name], old[name]))
        else:
            assert torch.equal(new[name], old[name])
    assert sum(int((new[name] == 0).sum()) for name in masked) > 0
    assert all(p.requires_grad and p.grad is None for p in after.parameters())


def test_the_target_is_lost_and_the_source_is_kept() -> None:
    ctx = context(shift=1)
    before = pretrained(ctx)
    after = protect(before, ctx, rounds=10, steps=10, tolerance=0.05)
    assert ctx.source_val is not None and ctx.target is not None
    assert accuracy(after, ctx.source_val) >= accuracy(before, ctx.source_val) - 0.05
    assert accuracy(after, ctx.target) < accuracy(before, ctx.target) - 0.3


def test_the_seed_of_the_context_alone_decides() -> None:
    ctx = context()
    before = pretrained(ctx)
    released = under_global_seeds(lambda: protect(before, ctx))
    assert all(torch.equal(released[0][name], released[1][name]) for name in released[0])


@on_timm_networks
def test_it_runs_on_timm_networks(arch: Arch) -> None:
    ctx = context(5, arch=arch)
    after = protect(pretrained(ctx, steps=2), ctx, steps=2, lr=0.05)
    assert any(bool((w == 0).any()) for w in encoder_weights(after))


def test_losing_the_source_is_an_error() -> None:
    ctx = replace(context(), target=context().source)
    with pytest.raises(ValueError, match="source accuracy"):
        protect(pretrained(ctx), ctx, weight=10.0, ceiling=100.0, rounds=2, steps=10, lr=0.1, tolerance=0.0)


@pytest.mark.parametrize(
    "wrong", [{"threshold": 1.0}, {"threshold": -0.1}, {"lr": 0}, {"ceiling": 0}, {"bound": "x"}, {"weight": -1}]
)
def test_bad_hyper_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        defense("map", **wrong)
