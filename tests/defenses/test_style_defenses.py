"""CUTI and CUPI, and the maths of styles beneath them, against torch's layers and explicit loops."""

from __future__ import annotations

import copy
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F
from toys import context, defense, draw, learnt, same, under_global_seeds

from ntbench.learn.models import build, features, head, pack
from ntbench.learn.scoring import accuracy
from ntbench.tasks.data import Split
from ntbench.types import Arch

style = import_module("ntbench.defenses._style")
cupi = import_module("ntbench.defenses.cupi")
CLASSES = 3
KINDS = ["random_per_call", "fixed_random", "learned"]
NETS = ["cnns_bn", "test_resnet", "test_vit", "test_efficientnet", "test_mambaout", "vgg11"]


def arch_of(name: str) -> Arch:
    # VGG's own classifier alone has a hundred million weights.
    params = {"test_vit": {"img_size": 32}, "vgg11": {"mlp_ratio": 0.01}}.get(name, {})
    return Arch(name=name, params=params)


def net(name: str) -> nn.Module:
    return build(arch_of(name), CLASSES, seed=0)


@pytest.fixture
def model() -> nn.Module:
    return learnt()


def transfer(model: nn.Module, kind: str = "fixed_random", normalise: bool = True, size: int = 16) -> Any:
    return style.StyleTransfer(model, draw(2, 3, size, size), kind, normalise, torch.Generator().manual_seed(5))


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_statistics_are_those_of_numpy() -> None:
    x = draw(4, 9, 5)
    mean, deviation = style.statistics(x)
    assert np.allclose(mean, x.numpy().mean(1), atol=1e-6)
    assert np.allclose(deviation, np.sqrt(x.numpy().var(1) + 1e-5), atol=1e-6)


@pytest.mark.parametrize("normalise", [False, True])
def test_restyling_is_two_convolutions_without_bias(normalise: bool) -> None:
    giver, x, mixers = draw(4, 5, 3, 3, seed=1), draw(4, 5, 3, 3, seed=2), draw(2, 5, 5, seed=3)

    def moments(maps: Tensor) -> tuple[Tensor, Tensor]:
        return maps.mean((2, 3), keepdim=True), (maps.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()

    means, deviations = moments(giver)
    own = moments(x)
    plain = (x - own[0]) / (own[1] + 1e-6) if normalise else x
    scale, shift = (
        F.conv2d(s, m[:, :, None, None]).sigmoid() for s, m in ((deviations, mixers[1]), (means, mixers[0]))
    )
    rows = x.flatten(2).mT
    found = style.restyle(
        rows, style.statistics(giver.flatten(2).mT), mixers, style.statistics(rows) if normalise else None
    )
    assert torch.allclose(found.mT.reshape(x.shape), plain * scale + shift, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "channels", "axis"),
    [
        ("cnns_bn", [16, 32, 64], 1),
        ("test_resnet", [32, 32, 48, 192], 1),
        ("test_efficientnet", [16, 24, 32, 48], 1),
        ("test_mambaout", [16, 32, 48], 3),
        ("test_vit", [64] * 5, 2),
        ("vgg11", [64, 128, 256, 512, 512], 1),
    ],
)
def test_borders_are_stage_ends_with_more_than_one_position(name: str, channels: list[int], axis: int) -> None:
    found = style.find_borders(net(name), draw(2, 3, 32, 32))
    assert [border.channels for border in found] == channels
    assert {border.axis for border in found} == {axis}


def test_many_blocks_are_cut_into_five_groups() -> None:
    model = net("test_vit")
    ends = [border.module for border in style.find_borders(model, draw(2, 3, 32, 32))]
    blocks: Any = model.blocks
    assert ends == [blocks[i] for i in (0, 1, 2, 3, 5)]


def test_a_network_without_usable_stages_is_refused_with_its_name() -> None:
    model = net("cnns_bn")
    model.blocks = nn.Sequential(nn.Sequential(model.blocks, nn.AdaptiveAvgPool2d(1)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"SmallCNN has no stages .* at 16 pixels"):
        style.find_borders(model, draw(2, 3, 16, 16))
    assert not hooks(model)


@pytest.mark.parametrize("name", NETS)
def test_observing_changes_nothing_restyling_does_and_no_hook_stays(name: str) -> None:
    model, x = net(name).eval(), draw(6, 3, 32, 32)
    with torch.no_grad():
        styles = transfer(model, size=32)
        plain, seen = styles.observe(x)
        changed = styles.restyled(x.flip(0), seen)
    assert not hooks(model)
    assert torch.equal(plain, features(model, x))
    assert len(seen) == len(styles.borders)
    assert ((changed - plain.flip(0)).abs().amax(1) > 1e-3 * plain.abs().max()).all()


def test_hooks_are_removed_after_an_error(model: nn.Module) -> None:
    styles = transfer(model)
    with pytest.raises(RuntimeError):
        styles.observe(draw(2, 5, 16, 16))
    assert not hooks(model)


def test_mixers_are_drawn_as_torch_initialises_convolutions(model: nn.Module) -> None:
    conv = nn.Conv2d(64, 64, 1, bias=False)
    drawn = transfer(model)._mixers[2]
    bound = float(conv.weight.detach().abs().max())
    assert float(drawn.abs().max()) == pytest.approx(bound, rel=0.01)
    assert float(drawn.std()) == pytest.approx(bound / 3**0.5, rel=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_only_random_per_call_draws_anew_and_only_learned_trains(model: nn.Module, kind: str) -> None:
    styles, x = transfer(model, kind), draw(6, 3, 16, 16)
    _, givers = styles.observe(x.flip(0))
    first, second = (styles.restyled(x, givers).detach() for _ in range(2))
    assert torch.equal(first, second) == (kind != "random_per_call")
    f = styles.restyled(x, givers)
    (f * draw(*f.shape)).sum().backward()
    assert [p.grad is not None and bool(p.grad.any()) for p in styles.parameters()] == [True] * 3 * (kind == "learned")


def test_gaps_are_the_sums_over_borders_of_mean_squared_differences(model: nn.Module) -> None:
    ctx = context()
    assert ctx.source is not None and ctx.target is not None
    styles, (i, j) = transfer(model), (torch.arange(8), torch.arange(30, 38))
    memories = cupi._Memories(styles, ctx.source, ctx.target, shared=True)
    with torch.no_grad():
        fs, s = styles.observe(ctx.source.x[i])
        fc, (ft, t) = styles.restyled(ctx.target.x[j], s), styles.observe(ctx.target.x[j])
        known, _ = styles.look(ctx.target.x)
        known[j] = fc
        found = memories.gaps(i, j, (fs, fc, ft), (s, t))
        # The model is in eval mode, so that source styles come out as they were remembered.
        _, sources = styles.observe(ctx.source.x)
    centres = torch.stack([known[ctx.target.y == k].mean(0) for k in range(CLASSES)])
    expected = [F.mse_loss(centres[ctx.source.y[i]], fs), F.mse_loss(centres[ctx.target.y[j]], ft)]
    for moment in (0, 1):
        total = torch.zeros(())
        for ours, theirs in zip(t, sources, strict=True):
            means = torch.stack([theirs[moment][ctx.source.y == k].mean(0) for k in range(CLASSES)])
            total = total + F.mse_loss(means[ctx.target.y[j]], ours[moment])
        expected.append(total)
    assert torch.allclose(found, torch.stack(expected), rtol=1e-4, atol=1e-6)


def test_k_in_both_forms() -> None:
    ours, public = (defense("cupi", steps=300, epochs=30, k_schedule=form) for form in ("corrected", "reference"))
    assert ours.k(1) == pytest.approx(0.1 * (1 / 30) ** 0.9)
    assert ours.k(300) == pytest.approx(0.1)
    assert public.k(1) == pytest.approx(ours.k(1))
    assert public.k(300) == pytest.approx(0.1 * (29 + 1 / 30) ** 0.9)
    assert ours.k(10) == ours.k(1) < ours.k(11)


@pytest.mark.parametrize("scale", ["nats", "klmean"])
def test_cuti_bounds_the_target_loss_in_both_scales(scale: str) -> None:
    source, ys = draw(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    near, far = draw(6, 4, seed=1).requires_grad_(), (100 * draw(6, 4, seed=2)).requires_grad_()
    divisor = 4 if scale == "klmean" else 1
    method = defense("cuti", alpha=0.1, scale=scale)
    kept = F.cross_entropy(source, ys) / divisor
    near_loss, far_loss = (method._loss(source, ys, target, ys) for target in (near, far))
    assert torch.allclose(near_loss, kept - 0.1 * F.cross_entropy(near, ys) / divisor)
    assert torch.allclose(far_loss, kept - 1)
    assert not torch.autograd.grad(far_loss, far)[0].any()


def test_cuti_restyles_on_odd_steps_alone(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    cuti = import_module("ntbench.defenses.cuti")
    calls: list[str] = []
    restyled = style.StyleTransfer.restyled

    def noted(name: str, call: Any) -> Any:
        def note(*given: Any) -> Any:
            calls.append(name)
            return call(*given)

        return note

    monkeypatch.setattr(cuti, "features", noted("plain", features))
    monkeypatch.setattr(style.StyleTransfer, "restyled", noted("styled", restyled))
    defense("cuti", steps=5, tolerance=1.0).protect(model, context())
    assert calls == ["styled", "plain", "styled", "plain", "styled"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["cuti", "cupi"])
def test_the_seed_of_the_context_alone_decides(name: str, kind: str) -> None:
    method = defense(name, steps=6, style=kind, tolerance=1.0, batch_size=16)
    released = under_global_seeds(lambda: method.protect(learnt(), context(shift=1)))
    assert same(*released)
    other = method.protect(learnt(), replace(context(shift=1), seed=1))
    assert not same(released[0], pack(other))


@pytest.mark.parametrize("arch", NETS)
@pytest.mark.parametrize("name", ["cuti", "cupi"])
def test_any_timm_network_and_more_target_than_source_classes(name: str, arch: str) -> None:
    model = net(arch)
    before = pack(model)
    ctx = context(5, arch=arch_of(arch), size=32)
    released = defense(name, steps=2, batch_size=4, head_steps=3, tolerance=1.0).protect(model, ctx)
    assert head(released).out_features == CLASSES
    assert not hooks(released)
    assert pack(released).keys() == before.keys()
    assert not same(pack(released), before)


@pytest.mark.parametrize(
    ("name", "params"),
    [("cuti", {}), ("cupi", {}), ("cupi", {"k_schedule": "reference"})],
)
def test_target_accuracy_collapses_and_the_source_stays(model: nn.Module, name: str, params: dict[str, Any]) -> None:
    ctx = context(shift=0.4)
    assert ctx.target is not None and ctx.source_val is not None
    assert accuracy(model, ctx.target) > 0.8
    kept = accuracy(model, ctx.source_val)
    released = defense(name, steps=80, lr=2e-3, **params).protect(model, ctx)
    assert accuracy(released, ctx.target) < 0.4
    assert accuracy(released, ctx.source_val) >= kept - 0.02


@pytest.mark.parametrize("name", ["cuti", "cupi"])
def test_divergence_and_a_lost_source_are_told(model: nn.Module, name: str) -> None:
    with pytest.raises(ValueError, match="source accuracy on validation data"):
        defense(name, steps=3, lr=10.0, tolerance=0.0).protect(copy.deepcopy(model), context())
    ctx = context()
    assert ctx.source is not None
    broken = replace(ctx, source=Split(torch.full_like(ctx.source.x, torch.nan), ctx.source.y))
    with pytest.raises(FloatingPointError, match="the loss is nan at step 1"):
        defense(name, steps=3).protect(model, broken)


@pytest.mark.parametrize(
    "wrong",
    [
        {"style": "learnt"},
        {"alpha": 0.0},
        {"scale": "bits"},
        {"steps": 0},
        {"lr": -1e-3},
        {"schedule": "sawtooth"},
        {"tolerance": 1.2},
        {"k": 1.0},
    ],
)
@pytest.mark.parametrize("name", ["cuti", "cupi"])
def test_bad_settings_are_refused(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        defense(name, **wrong)


@pytest.mark.parametrize("wrong", [{"k_max": -0.1}, {"k_schedule": "public"}, {"epochs": 0}])
def test_bad_settings_of_the_memory_terms_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        defense("cupi", **wrong)
