"""The control of a random mask: its exact sparsity, where its zeros are, and that it retrains."""

from __future__ import annotations

import copy
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from toys import context, defense, on_timm_networks, pretrained, under_global_seeds

from ntbench.learn.models import pack
from ntbench.method import Context
from ntbench.types import Arch

encoder_weights = import_module("ntbench.defenses._pruning").encoder_weights


def protect(name: str, model: nn.Module, ctx: Context, **params: Any) -> nn.Module:
    seen = replace(ctx, target=None)
    few = {"iterations": 5, "steps": 4, "tune_steps": 10, "tolerance": 1.0}
    released: nn.Module = defense(name, **few | params).protect(copy.deepcopy(model), seen)
    return released


def zeros(model: nn.Module) -> Tensor:
    return torch.cat([(w == 0).flatten() for w in encoder_weights(model)])


@pytest.mark.parametrize("sparsity", [0.25, 0.9, 0.97])
def test_the_sparsity_is_exact_and_that_of_magnitude(sparsity: float) -> None:
    ctx = context()
    before = pretrained(ctx)
    random = zeros(protect("random_mask", before, ctx, sparsity=sparsity))
    assert int(random.sum()) == round(sparsity * len(random))
    assert random.sum() == zeros(protect("magnitude", before, ctx, sparsity=sparsity)).sum()


def test_the_mask_does_not_look_at_magnitudes() -> None:
    ctx = context()
    before = pretrained(ctx)
    magnitudes = torch.cat([w.detach().abs().flatten() for w in encoder_weights(before)])
    kept = ~zeros(protect("random_mask", before, ctx, sparsity=0.5))
    # The difference of two means of about 12 thousand values each: five standard errors.
    error = magnitudes.std() * (4 / len(magnitudes)) ** 0.5
    assert abs(magnitudes[kept].mean() - magnitudes[~kept].mean()) < 5 * error


def test_the_seed_of_the_context_alone_decides() -> None:
    ctx = context()
    before = pretrained(ctx)
    released = under_global_seeds(lambda: protect("random_mask", before, ctx))
    assert all(torch.equal(released[0][name], released[1][name]) for name in released[0])
    assert not torch.equal(
        zeros(protect("random_mask", before, ctx)), zeros(protect("random_mask", before, replace(ctx, seed=1)))
    )


def test_what_is_left_is_retrained() -> None:
    ctx = context()
    before = pretrained(ctx)
    old, new = pack(before), pack(protect("random_mask", before, ctx))
    left = new["blocks.0.0.weight"] != 0
    assert not torch.equal(new["blocks.0.0.weight"][left], old["blocks.0.0.weight"][left])


@on_timm_networks
def test_it_runs_on_timm_networks(arch: Arch) -> None:
    ctx = context(arch=arch)
    assert zeros(protect("random_mask", ctx.fresh(3), ctx, tune_steps=2)).float().mean() == pytest.approx(
        0.98, abs=1e-3
    )


@pytest.mark.parametrize(
    "wrong", [{"sparsity": 1.2}, {"sparsity": 0}, {"tune_lr": 0}, {"tune_steps": 0}, {"tolerance": 2}]
)
def test_bad_hyper_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        defense("random_mask", **wrong)
