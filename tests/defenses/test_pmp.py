"""PMP: a ticket found early, trained alone, and released among untrained weights."""

from __future__ import annotations

import copy
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from toys import CNN, context, defense, on_timm_networks, pretrained, under_global_seeds

from ntbench.learn.meter import Meter
from ntbench.learn.models import pack
from ntbench.learn.scoring import accuracy
from ntbench.method import Context
from ntbench.types import Arch

pmp = import_module("ntbench.defenses.pmp")
encoder_weights = import_module("ntbench.defenses._pruning").encoder_weights
QUICK: dict[str, Any] = {"warmup": 20, "interval": 5, "steps": 10, "rounds": 1, "tolerance": 1.0}


def source_only(arch: Arch = CNN) -> Context:
    return replace(context(arch=arch), target=None)


def protect(model: nn.Module, ctx: Context, **params: Any) -> nn.Module:
    released: nn.Module = defense("pmp", **QUICK | params).protect(copy.deepcopy(model), ctx)
    return released


def trained_share(start: nn.Module, end: nn.Module) -> float:
    pairs = list(zip(encoder_weights(start), encoder_weights(end), strict=True))
    changed = sum(int((a != b).sum()) for a, b in pairs)
    return changed / sum(int(a.numel()) for a, _ in pairs)


def test_hamming_distance_is_the_share_of_flipped_entries() -> None:
    a = [torch.tensor([[True, False], [True, True]]), torch.tensor([False])]
    b = [torch.tensor([[False, False], [True, False]]), torch.tensor([True])]
    assert pmp.hamming_distance(a, a) == 0
    assert pmp.hamming_distance(a, b) == pytest.approx(3 / 5)


@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.97])
def test_only_the_ticket_leaves_the_random_start(sparsity: float) -> None:
    ctx = source_only()
    start = ctx.fresh(3)
    after = protect(pretrained(ctx), ctx, sparsity=sparsity)
    assert trained_share(start, after) == pytest.approx(1 - sparsity, abs=1e-3)
    assert not any(bool((w == 0).any()) for w in encoder_weights(after))
    assert not torch.equal(pack(start)["head.weight"], pack(after)["head.weight"])


def test_without_rewinding_the_complement_keeps_the_warm_up() -> None:
    ctx = source_only()
    assert trained_share(ctx.fresh(3), protect(pretrained(ctx), ctx, rewind=False)) > 0.99


def test_the_early_bird_stops_where_masks_stand_still() -> None:
    ctx = source_only()
    before, steps = pretrained(ctx), []
    # Masks of a sparsity of 0.95 differ in a tenth of their entries at most, which counts as 1.
    for sparsity, stability in ((0.9, 1.0), (0.9, 1e-9), (0.95, 1.0), (0.95, 0.1)):
        with Meter() as meter:
            protect(before, ctx, sparsity=sparsity, stability=stability, patience=2, warmup=40, steps=1)
        steps.append(meter.cost.steps - 1)
    assert steps[:3] == [5 * 2, 40, 5 * 2]
    assert steps[3] > 5 * 2


def test_training_goes_on_until_the_source_is_learnt() -> None:
    ctx = source_only()
    before = pretrained(ctx)
    assert ctx.source_val is not None
    with pytest.raises(ValueError, match="source accuracy"):
        protect(before, ctx, steps=1, tolerance=0.0, sparsity=0.99)
    after = protect(before, ctx, steps=40, rounds=5, tolerance=0.05)
    assert accuracy(after, ctx.source_val) >= accuracy(before, ctx.source_val) - 0.05


def test_the_seed_of_the_context_alone_decides() -> None:
    ctx = source_only()
    before = pretrained(ctx)
    released = under_global_seeds(lambda: protect(before, ctx))
    assert all(torch.equal(released[0][name], released[1][name]) for name in released[0])


@on_timm_networks
def test_it_runs_on_timm_networks(arch: Arch) -> None:
    ctx = source_only(arch)
    after = protect(ctx.fresh(3), ctx, steps=3, warmup=3)
    assert trained_share(ctx.fresh(3), after) <= 0.11


@pytest.mark.parametrize(
    "wrong", [{"sparsity": 1.2}, {"sparsity": 0}, {"stability": 0}, {"patience": 0}, {"lr": -1}, {"warmup": 0}]
)
def test_bad_hyper_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        defense("pmp", **wrong)
