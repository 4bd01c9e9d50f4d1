"""NTP on a contrastive encoder: exact sparsity, no source labels in the pruning, and the reference of its guard."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F
from toys import context, defense, domain, draw, learnt, on_timm_networks, same, under_global_seeds

from ntbench.learn.models import features, head, pack
from ntbench.learn.scoring import accuracy
from ntbench.method import Context
from ntbench.tasks.data import Split
from ntbench.types import Arch

encoder_weights = import_module("ntbench.defenses._pruning").encoder_weights
fisher_ratio = import_module("ntbench.defenses._fisher").fisher_ratio
nt_xent = import_module("ntbench.defenses._simclr").nt_xent
PRETRAIN = {"pretrain_steps": 4, "pretrain_batch_size": 16, "probe_steps": 20}
CHEAP = PRETRAIN | {"iterations": 3, "steps": 2, "tune_steps": 3, "tune_batch_size": 16, "tolerance": 1.0}


def protect(ctx: Context, model: nn.Module | None = None, **params: Any) -> nn.Module:
    released: nn.Module = defense("ntp_ssl", **CHEAP | params).protect(model or learnt(), ctx)
    return released


@pytest.mark.parametrize("sparsity", [0.5, 0.97])
@pytest.mark.parametrize("batch_norm", ["kept", "pruned"])
def test_released_zeros_are_exactly_the_sparsity(sparsity: float, batch_norm: str) -> None:
    released = protect(context(), sparsity=sparsity, batch_norm=batch_norm)
    pruned = encoder_weights(released, batch_norm=batch_norm == "pruned")
    assert sum(int((w == 0).sum()) for w in pruned) == round(sparsity * sum(w.numel() for w in pruned))
    assert bool((head(released).weight != 0).all())


def test_source_labels_reach_the_head_alone_and_target_labels_the_encoder() -> None:
    ctx = context()
    assert ctx.source is not None and ctx.target is not None
    released = pack(protect(ctx))
    others = (
        replace(ctx, source=Split(ctx.source.x, ctx.source.y.roll(1))),
        replace(ctx, target=Split(ctx.target.x, ctx.target.y[torch.randperm(120, generator=torch.Generator())])),
    )
    in_source, in_target = (pack(protect(other)) for other in others)
    changed = {name for name in released if not torch.equal(released[name], in_source[name])}
    assert changed == {"head.weight", "head.bias"}
    assert not torch.equal(released["blocks.0.0.weight"], in_target["blocks.0.0.weight"])


def test_the_model_that_is_handed_in_decides_nothing() -> None:
    ctx = context()
    assert same(pack(protect(ctx)), pack(protect(ctx, model=ctx.fresh(3))))


def test_source_accuracy_is_held_against_that_of_simclr() -> None:
    ctx = context()
    assert ctx.source_val is not None
    unprotected = defense("simclr", **PRETRAIN).protect(learnt(), ctx)
    start = accuracy(unprotected, ctx.source_val)
    # A tenth of a per cent of the weights and no training worth its name leave nothing to classify by.
    with pytest.raises(ValueError, match=rf"was 0\.\d+ at best, {start:.3f} before: "):
        protect(ctx, sparsity=0.9999, iterations=1, tune_lr=1e-9, tolerance=0.02)


def test_the_loss_is_contrast_and_the_fisher_ratio_of_normalised_target_features() -> None:
    model, x, xt, y = learnt().eval(), draw(8, 3, 16, 16), draw(6, 3, 16, 16, seed=1), torch.arange(6) % 3
    projector = nn.Linear(head(model).in_features, 5)
    ours = defense("ntp_ssl", strength=7.0, temperature=0.3)._loss(model, projector, x, xt, y)
    ratio = fisher_ratio(F.normalize(features(model, xt), dim=1), y)
    assert torch.allclose(ours, nt_xent(projector(features(model, x)), 0.3) + 7 * ratio, atol=1e-5)


def test_the_regulariser_draws_the_classes_of_the_target_together_and_the_source_stays() -> None:
    ctx = context(shift=0.4)
    assert ctx.source_val is not None
    longer: dict[str, Any] = {
        "pretrain_steps": 40,
        "iterations": 6,
        "steps": 8,
        "tune_steps": 20,
        "sparsity": 0.9,
        "probe_steps": 60,
    }
    target = domain(3, seed=6, shift=0.4)
    ratios = []
    for strength in (0.0, 30.0):
        released = protect(ctx, strength=strength, **longer).eval()
        assert accuracy(released, ctx.source_val) > 0.9
        with torch.no_grad():
            ratios.append(float(fisher_ratio(F.normalize(features(released, target.x), dim=1), target.y)))
    assert ratios[1] < 0.7 * ratios[0]


def test_the_seed_of_the_context_alone_decides() -> None:
    ctx = context()
    released = under_global_seeds(lambda: protect(ctx))
    assert same(*released)
    assert not same(released[0], pack(protect(replace(ctx, seed=1))))


@pytest.mark.parametrize("classes", [2, 6])
def test_other_target_classes_and_few_samples_are_no_obstacle(classes: int) -> None:
    few = replace(context(), target=domain(classes, seed=2, count=classes, shift=1), target_classes=classes)
    assert head(protect(few)).out_features == 3


@on_timm_networks
def test_it_runs_on_timm_networks(arch: Arch) -> None:
    ctx = context(arch=arch)
    quick = {"pretrain_steps": 1, "iterations": 1, "steps": 1, "tune_steps": 1, "probe_steps": 1}
    assert pack(protect(ctx, model=ctx.fresh(3), **quick))


@pytest.mark.parametrize(
    "wrong", [{"sparsity": 1}, {"strength": -1}, {"batch_size": 1}, {"tolerance": 2}, {"alpha": 1}]
)
def test_bad_hyper_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        defense("ntp_ssl", **wrong)
