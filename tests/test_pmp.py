"""PMP: a ticket found early, trained alone, and released among untrained weights."""

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
from ntbench.train import Meter, accuracy, fit
from ntbench.types import Arch, Budget, Training

pmp = import_module("ntbench.defenses.pmp")
encoder_weights = import_module("ntbench.defenses._pruning").encoder_weights
QUICK: dict[str, Any] = {"warmup": 20, "interval": 5, "steps": 10, "rounds": 1, "tolerance": 1.0}


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


def source_only(arch: str = "cnns_bn", **params: Any) -> Context:
    return replace(context(arch, **params), target=None)


def protect(model: nn.Module, ctx: Context, **params: Any) -> nn.Module:
    released: nn.Module = registry.get("defense", "pmp")(**QUICK | params).protect(copy.deepcopy(model), ctx)
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
    for stability in (1.0, 1e-9):
        with Meter() as meter:
            protect(before, ctx, stability=stability, patience=2, warmup=40, steps=1)
        steps.append(meter.steps - 1)
    assert steps == [5 * 2, 40]


def test_training_goes_on_until_the_source_is_learnt() -> None:
    ctx = source_only()
    before = pretrained(ctx)
    assert ctx.source_val is not None
    with pytest.raises(FloatingPointError, match="source accuracy"):
        protect(before, ctx, steps=1, tolerance=0.0, sparsity=0.99)
    after = protect(before, ctx, steps=40, rounds=5, tolerance=0.05)
    assert accuracy(after, ctx.source_val) >= accuracy(before, ctx.source_val) - 0.05


def test_the_seed_of_the_context_alone_decides() -> None:
    ctx = source_only()
    before = pretrained(ctx)
    released: list[dict[str, Tensor]] = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            released.append(pack(protect(before, ctx)))
    assert all(torch.equal(released[0][name], released[1][name]) for name in released[0])


@pytest.mark.parametrize(
    ("arch", "params"),
    [("test_vit", {"img_size": 16, "patch_size": 4}), ("test_resnet", {}), ("test_efficientnet", {})],
)
def test_it_runs_on_timm_networks(arch: str, params: dict[str, Any]) -> None:
    ctx = source_only(arch, **params)
    after = protect(ctx.fresh(3), ctx, steps=3, warmup=3)
    assert trained_share(ctx.fresh(3), after) <= 0.11


@pytest.mark.parametrize(
    "wrong", [{"sparsity": 1.2}, {"sparsity": 0}, {"stability": 0}, {"patience": 0}, {"lr": -1}, {"warmup": 0}]
)
def test_bad_hyper_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        registry.get("defense", "pmp")(**wrong)
