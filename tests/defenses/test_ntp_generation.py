"""NTP's pruning on denoisers: what it minimises, the mask that it leaves, and which half of the loss does what."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from denoisers import granted, images, released
from pydantic import ValidationError
from torch.nn import functional as F
from toys import defense

from ntbench.learn.models import features, head
from ntbench.learn.scoring import accuracy

mmd = import_module("ntbench.defenses._mmd").mmd
QUICK: dict[str, Any] = {"iterations": 4, "steps": 5, "tune_steps": 5, "batch_size": 16, "tolerance": 1.0}

Batch = tuple[torch.Tensor, torch.Tensor]


@pytest.mark.parametrize("discrepancy", ["mmd", "none"])
def test_the_loss_is_the_source_error_minus_the_bounded_target_error(discrepancy: str) -> None:
    model, ctx = released(), granted()
    assert ctx.source is not None and ctx.target is not None
    generator = torch.Generator().manual_seed(0)
    source, target = ctx.source.whole(generator), ctx.target.whole(generator)
    with torch.no_grad():
        _compare(model, source, target, discrepancy)


def _compare(model: torch.nn.Module, source: Batch, target: Batch, discrepancy: str) -> None:
    found = defense("ntp_generation", alpha=0.5, bound=0.2, discrepancy=discrepancy)._loss(model, source, target)
    errors = (model(target[0]) - target[1]).square().mean(dim=(1, 2, 3))
    assert (errors > 0.2).any() and (errors < 0.2).any()
    maps = [F.normalize(features(model, x), dim=1).flatten(1) for x, _ in (source, target)]
    apart = min(float(mmd(*maps)), 1.0) if discrepancy == "mmd" else 1.0
    expected = F.mse_loss(model(source[0]), source[1]) - 0.5 * errors.clamp_max(0.2).mean() * apart
    assert float(found) == pytest.approx(float(expected), rel=1e-4)


def test_the_mask_has_the_asked_sparsity_below_the_last_layer() -> None:
    model = defense("ntp_generation", **QUICK, sparsity=0.5).protect(released(), granted())
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear) and m is not head(model)]
    zeros = sum(int((m.weight == 0).sum()) for m in layers)
    assert zeros == round(0.5 * sum(m.weight.numel() for m in layers))
    assert (head(model).weight != 0).all()


def test_the_target_pays_for_a_larger_alpha() -> None:
    test = images(6, shift=0.4)
    params = {**QUICK, "iterations": 4, "sparsity": 0.2, "lr": 5e-3, "tune_steps": 0, "discrepancy": "none"}
    scores = [
        accuracy(defense("ntp_generation", **params, alpha=alpha).protect(released(), granted()), test)
        for alpha in (1e-3, 0.9)
    ]
    assert scores[1] < scores[0] - 0.02


@pytest.mark.parametrize("params", [{"ratio": "balanced"}, {"strength": 1.0}, {"batch_norm": "pruned"}, {"alpha": 0.0}])
def test_what_needs_classes_or_batch_norm_is_no_setting(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(params))):
        defense("ntp_generation", **params)
