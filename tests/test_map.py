"""MAP: the straight-through mask, its bounded loss, and what is released."""

from __future__ import annotations

import copy
from importlib import import_module
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.data import Split
from ntbench.method import Context
from ntbench.models import build, head, pack
from ntbench.registry import registry
from ntbench.train import accuracy, fit
from ntbench.types import Arch, Budget, Training

straight_through = import_module("ntbench.defenses._straight_through")
encoder_weights = import_module("ntbench.defenses._pruning").encoder_weights
QUICK: dict[str, Any] = {"rounds": 3, "steps": 5, "head_steps": 20, "tolerance": 1.0}


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


def protect(model: nn.Module, ctx: Context, **params: Any) -> nn.Module:
    released: nn.Module = registry.get("defense", "map")(**QUICK | params).protect(copy.deepcopy(model), ctx)
    return released


def state(model: nn.Module) -> dict[str, Tensor]:
    return pack(model)


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
    build_map = registry.get("defense", "map")
    assert build_map(weight=0.5, ceiling=2.0)._harm(losses).item() == (0 + 0.5 + 1 + 2) / 4
    assert build_map(weight=0.5, ceiling=2.0, bound="batch")._harm(losses).item() == 2.0
    assert build_map(weight=0.5, ceiling=50.0, bound="batch")._harm(losses).item() == 0.5 * 103 / 4


@pytest.mark.parametrize("target", [None, domain(3, seed=2, shift=1), domain(2, seed=2)])
def test_released_weights_are_the_frozen_ones_or_zero(target: Split | None) -> None:
    ctx = context(target=target)
    before = pretrained(ctx)
    after = protect(before, ctx)
    masked = {n for n, p in before.named_parameters() if any(p is w for w in encoder_weights(before))}
    old, new = state(before), state(after)
    for name in old:
        if name in masked:
            assert torch.equal(new[name], torch.where(new[name] == 0, new[name], old[name]))
        else:
            assert torch.equal(new[name], old[name])
    assert sum(int((new[name] == 0).sum()) for name in masked) > 0
    assert all(p.requires_grad and p.grad is None for p in after.parameters())


def test_the_target_is_lost_and_the_source_is_kept() -> None:
    ctx = context(target=domain(3, seed=2, shift=0.4))
    before = pretrained(ctx)
    after = protect(before, ctx, rounds=10, steps=10, tolerance=0.05)
    assert ctx.source_val is not None and ctx.target is not None
    assert accuracy(after, ctx.source_val) >= accuracy(before, ctx.source_val) - 0.05
    assert accuracy(after, ctx.target) < accuracy(before, ctx.target) - 0.3


def test_the_seed_of_the_context_alone_decides() -> None:
    ctx = context()
    before = pretrained(ctx)
    released = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            released.append(state(protect(before, ctx)))
    assert all(torch.equal(released[0][name], released[1][name]) for name in released[0])


@pytest.mark.parametrize(
    ("arch", "params"),
    [("test_vit", {"img_size": 16, "patch_size": 4}), ("test_resnet", {}), ("test_efficientnet", {})],
)
def test_it_runs_on_timm_networks(arch: str, params: dict[str, Any]) -> None:
    ctx = context(arch, **params)
    after = protect(pretrained(ctx, steps=2), ctx, steps=2, lr=0.05)
    assert any(bool((w == 0).any()) for w in encoder_weights(after))


def test_losing_the_source_is_an_error() -> None:
    ctx = context(target=domain(3, seed=0))
    with pytest.raises(FloatingPointError, match="source accuracy"):
        protect(pretrained(ctx), ctx, weight=10.0, ceiling=100.0, rounds=2, steps=10, lr=0.1, tolerance=0.0)


@pytest.mark.parametrize(
    "wrong", [{"threshold": 1.0}, {"threshold": -0.1}, {"lr": 0}, {"ceiling": 0}, {"bound": "x"}, {"weight": -1}]
)
def test_bad_hyper_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        registry.get("defense", "map")(**wrong)
