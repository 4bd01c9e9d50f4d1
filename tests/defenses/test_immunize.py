"""Immunisation: the regularisers against NumPy and SciPy, and what they do to condition numbers."""

from __future__ import annotations

import copy
from dataclasses import replace
from importlib import import_module
from typing import Any

import denoisers
import numpy as np
import pytest
import scipy.linalg
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from toys import context, defense, draw, on_timm_networks, pretrained, under_global_seeds

from ntbench.learn.models import features, head, pack
from ntbench.learn.scoring import accuracy
from ntbench.method import Context
from ntbench.tasks.data import Split
from ntbench.types import Arch

condition = import_module("ntbench.defenses._condition")
QUICK: dict[str, Any] = {"rounds": 2, "steps": 3, "tolerance": 1.0}


def protect(model: nn.Module, ctx: Context, **params: Any) -> nn.Module:
    released: nn.Module = defense("immunize", **QUICK | params).protect(copy.deepcopy(model), ctx)
    return released


def unlabelled(ctx: Context) -> Context:
    assert ctx.target is not None
    return replace(ctx, target=Split(ctx.target.x, torch.full_like(ctx.target.y, -1)))


def log_condition(x: Tensor) -> float:
    """Return the log of the condition number of X^T X, by SciPy's singular values of X."""
    values = scipy.linalg.svdvals(x.double().numpy())
    return float(2 * np.log(values[0] / values[-1]))


@pytest.mark.parametrize(("n", "d"), [(12, 5), (5, 12)])
def test_regularisers_follow_the_singular_values_of_the_features(n: int, d: int) -> None:
    x = draw(n, d)
    s = scipy.linalg.svdvals(x.double().numpy()) ** 2
    gram = condition.gram(x)
    assert gram.dtype == torch.float64 and gram.shape == (5, 5)
    k, mean_square = 5, (s**2).sum() / (2 * 5)
    assert condition.well_conditioned(gram).item() == pytest.approx(s[0] ** 2 / 2 - mean_square)
    assert condition.ill_conditioned(gram).item() == pytest.approx(1 / (mean_square - s[k - 1] ** 2 / 2))


def test_the_features_form_is_singular_below_d_samples() -> None:
    x = draw(5, 12)
    wide, narrow = condition.gram(x, "features"), condition.gram(x)
    np.testing.assert_allclose(wide.numpy(), x.double().numpy().T @ x.double().numpy())
    np.testing.assert_allclose(np.linalg.eigvalsh(wide)[-5:], np.linalg.eigvalsh(narrow))
    total = np.linalg.norm(wide.numpy()) ** 2
    assert condition.ill_conditioned(wide).item() == pytest.approx(2 * 12 / total)


def test_equal_eigenvalues_are_the_best_condition() -> None:
    even = 3 * torch.eye(4, dtype=torch.float64)
    assert condition.well_conditioned(even).item() == pytest.approx(0)
    assert condition.ill_conditioned(even, floor=1e-3).item() == pytest.approx(1000)


@pytest.mark.parametrize(("name", "sign"), [("well_conditioned", -1), ("ill_conditioned", 1)])
def test_a_small_step_down_moves_the_condition_number_its_way(name: str, sign: int) -> None:
    s = condition.gram(draw(30, 6)).requires_grad_()
    (gradient,) = torch.autograd.grad(getattr(condition, name)(s), s)
    before = np.linalg.cond(s.detach().numpy())
    after = np.linalg.cond((s.detach() - 1e-3 * s.detach().norm() * gradient / gradient.norm()).numpy())
    assert sign * (after - before) > 0


@pytest.mark.parametrize("name", ["well_conditioned", "ill_conditioned"])
def test_gradients_are_those_of_the_formulas(name: str) -> None:
    x = draw(4, 6).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: getattr(condition, name)(condition.gram(t)), x)


@pytest.mark.parametrize("name", ["well_conditioned", "ill_conditioned"])
def test_gradients_are_finite_where_eigenvalues_are_equal(name: str) -> None:
    x = torch.eye(4, 9).requires_grad_()
    (gradient,) = torch.autograd.grad(getattr(condition, name)(condition.gram(x)), x)
    assert gradient.dtype == torch.float32 and bool(gradient.isfinite().all())


def test_the_target_gets_badly_conditioned_against_the_source() -> None:
    ctx = context(shift=1)
    assert ctx.source is not None and ctx.target is not None and ctx.source_val is not None
    before = pretrained(ctx)
    after = protect(before, unlabelled(ctx), rounds=5, steps=10, tolerance=0.05)
    with torch.no_grad():
        moved = [
            log_condition(features(after.eval(), data.x)) - log_condition(features(before.eval(), data.x))
            for data in (ctx.target, ctx.source)
        ]
    assert moved[0] > 1 > moved[1] + 1
    assert accuracy(after, ctx.source_val) >= accuracy(before, ctx.source_val) - 0.05


def test_pretrained_units_make_the_weights_independent_of_the_scale() -> None:
    x = draw(20, 6)
    unit = defense("immunize")._unit
    grams = [condition.gram(c * x / unit(c * x)) for c in (1.0, 50.0)]
    assert torch.linalg.eigvalsh(grams[0]).mean().item() == pytest.approx(1)
    torch.testing.assert_close(*grams)
    assert defense("immunize", units="absolute")._unit(x).item() == 1


def test_switches_change_the_outcome_and_seeds_of_others_do_not() -> None:
    ctx = unlabelled(context(5, shift=0))
    before = pretrained(ctx)

    def released(**params: Any) -> list[Tensor]:
        weights = under_global_seeds(lambda: protect(before, ctx, **params))
        return [found["blocks.0.0.weight"] for found in weights]

    plain, again = released()
    assert torch.equal(plain, again)
    for switch in ({"gram": "features"}, {"units": "absolute"}, {"well": 1.0}, {"ill": 0.0}):
        assert not torch.equal(plain, released(**switch)[0])


@on_timm_networks
def test_it_runs_on_timm_networks(arch: Arch) -> None:
    ctx = unlabelled(context(5, arch=arch))
    after = protect(pretrained(ctx, steps=2), ctx)
    pack(after)
    assert all(p.requires_grad for p in after.parameters())


def test_divergence_is_an_error_with_its_step() -> None:
    ctx = unlabelled(context(5, shift=0))
    before = pretrained(ctx)
    with pytest.raises(FloatingPointError, match="at step"):
        protect(before, ctx, units="absolute", lr=1e30, clip=1e30)


@pytest.mark.parametrize("wrong", [{"well": -1}, {"ill": -1}, {"gram": "x"}, {"units": "x"}, {"lr": 0}, {"steps": 0}])
def test_bad_hyper_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        defense("immunize", **wrong)


def test_on_a_denoiser_rows_are_the_patches_that_the_last_convolution_sees() -> None:
    layer, maps = nn.Conv2d(3, 2, 3, padding=1), draw(2, 3, 5, 5)
    rows = condition.seen_rows(layer, maps)
    found = rows @ layer.weight.flatten(1).T + layer.bias
    assert torch.allclose(found, layer(maps).permute(0, 2, 3, 1).reshape(-1, 2), atol=1e-5)
    plain = draw(6, 4)
    assert condition.seen_rows(nn.Linear(4, 2), plain) is plain


def test_a_denoisers_last_layer_becomes_worse_conditioned_on_the_target_than_on_source() -> None:
    source, before = denoisers.images(1), denoisers.released()
    target = replace(source, held=0.9 - 0.1 * source.held)
    after = protect(before, denoisers.granted(target=target), rounds=1, steps=15, lr=3e-3)
    gaps = [
        log_condition(_patches(model, target)) - log_condition(_patches(model, source)) for model in (before, after)
    ]
    assert gaps[1] > gaps[0] + 0.3


def _patches(model: nn.Module, data: Split) -> Tensor:
    with torch.no_grad():
        x, _ = data.whole(torch.Generator().manual_seed(0))
        found: Tensor = condition.seen_rows(head(model), features(model.eval(), x))
    return found
