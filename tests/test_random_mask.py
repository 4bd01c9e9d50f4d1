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

from ntbench.data import Split
from ntbench.method import Context
from ntbench.models import build, pack
from ntbench.registry import registry
from ntbench.train import fit
from ntbench.types import Arch, Budget, Training

encoder_weights = import_module("ntbench.defenses._pruning").encoder_weights


def domain(classes: int, seed: int, shift: float = 0.0) -> Split:
    """Return 120 noisy copies of one pattern a class, with a share of every pattern inverted."""
    patterns = torch.randn(classes, 3, 16, 16, generator=torch.Generator().manual_seed(classes))
    patterns[:, :, : round(16 * shift)] *= -1
    y = torch.arange(120) % classes
    x = patterns[y] + torch.randn(120, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return Split(x.contiguous(memory_format=torch.channels_last), y)


def context(arch: str = "cnns_bn", target: Split | None = None, **params: Any) -> Context:
    """Return 3 classes on source; the target has 5 unless it is given."""
    found = domain(5, seed=2) if target is None else target
    return Context(
        source=domain(3, seed=0),
        target=found,
        source_val=domain(3, seed=1),
        target_classes=int(found.y.max()) + 1,
        budget=Budget(steps=1, samples=1, scored=(1,)),
        seed=0,
        device=torch.device("cpu"),
        fresh=lambda classes: build(Arch(name=arch, params=params), classes, seed=9),
    )


def pretrained(ctx: Context, steps: int = 40) -> nn.Module:
    """Return what has learnt the source."""
    model = ctx.fresh(3)
    assert ctx.source is not None
    for _ in fit(model, ctx.source, Training(lr=3e-3, steps=steps, batch_size=32), torch.Generator()):
        pass
    return model


def protect(name: str, model: nn.Module, ctx: Context, **params: Any) -> nn.Module:
    defense = registry.get("defense", name)(**{"tune_steps": 10} | params)
    released: nn.Module = defense.protect(copy.deepcopy(model), replace(ctx, target=None, source_val=None))
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
    released = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            released.append(pack(protect("random_mask", before, ctx)))
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


@pytest.mark.parametrize(
    ("arch", "params"),
    [("test_vit", {"img_size": 16, "patch_size": 4}), ("test_resnet", {}), ("test_efficientnet", {})],
)
def test_it_runs_on_timm_networks(arch: str, params: dict[str, Any]) -> None:
    ctx = context(arch, **params)
    assert zeros(protect("random_mask", ctx.fresh(3), ctx, tune_steps=2)).float().mean() == pytest.approx(
        0.97, abs=1e-3
    )


@pytest.mark.parametrize("wrong", [{"sparsity": 1.2}, {"sparsity": 0}, {"tune_lr": 0}, {"tune_steps": 0}])
def test_bad_hyper_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        registry.get("defense", "random_mask")(**wrong)
