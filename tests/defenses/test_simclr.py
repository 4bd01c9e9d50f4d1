"""SimCLR: its loss against a direct loop, its views against closed forms, and that labels reach the head alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from toys import context, defense, draw, learnt, on_timm_networks, same, under_global_seeds

from ntbench.learn.models import features, head, pack
from ntbench.learn.scoring import accuracy
from ntbench.method import Context
from ntbench.tasks.data import Split
from ntbench.types import Arch, Training

simclr = import_module("ntbench.defenses._simclr")
views = import_module("ntbench.defenses._views")
fit_head = import_module("ntbench.defenses._heads").fit_head
CHEAP = {"pretrain_steps": 4, "pretrain_batch_size": 16, "probe_steps": 20}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def protect(ctx: Context, model: nn.Module | None = None, **params: Any) -> nn.Module:
    released: nn.Module = defense("simclr", **CHEAP | params).protect(model or learnt(), replace(ctx, target=None))
    return released


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_loss_is_equation_1(count: int, temperature: float) -> None:
    z = draw(2 * count, 7)
    rows = z.double().numpy()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    losses = []
    for i in range(2 * count):
        j = (i + count) % (2 * count)
        others = sum(math.exp(unit[i] @ unit[k] / temperature) for k in range(2 * count) if k != i)
        losses.append(-math.log(math.exp(unit[i] @ unit[j] / temperature) / others))
    assert simclr.nt_xent(z, temperature).item() == pytest.approx(np.mean(losses), abs=1e-5)


def test_a_collapsed_encoder_has_the_loss_of_a_guess_and_a_perfect_one_less() -> None:
    assert simclr.nt_xent(torch.ones(8, 5), 0.5).item() == pytest.approx(math.log(7))
    perfect = torch.eye(4).repeat(2, 1)
    expected = -math.log(math.exp(2) / (math.exp(2) + 6))
    assert simclr.nt_xent(perfect, 0.5).item() == pytest.approx(expected)
    assert simclr.nt_xent(perfect, 0.5) < simclr.nt_xent(perfect[torch.randperm(8, generator=generator())], 0.5)


CHANGES: list[tuple[str, tuple[float, ...]]] = [
    ("cropped", (0.5, 0.5)),
    ("relit", (0.3, 0.3)),
    ("blurred", (1.0,)),
    ("noisy", (0.1,)),
]


@pytest.mark.parametrize(("name", "amounts"), CHANGES)
def test_a_change_is_drawn_for_every_image_by_the_generator_alone(name: str, amounts: tuple[float, ...]) -> None:
    change: Callable[..., Tensor] = getattr(views, name)
    x = draw(1, 3, 8, 8).expand(5, 3, 8, 8)
    state = torch.random.get_rng_state()
    once, again, other = (change(x, *amounts, generator(seed)) for seed in (0, 0, 1))
    assert once.shape == x.shape and once.dtype == x.dtype
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert len({tuple(image.flatten().tolist()) for image in once}) == 5
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(("name", "amounts"), CHANGES)
def test_an_amount_of_0_changes_nothing(name: str, amounts: tuple[float, ...]) -> None:
    x = draw(4, 3, 8, 8)
    assert torch.allclose(getattr(views, name)(x, *(0.0 for _ in amounts), generator()), x, atol=1e-5)


def test_a_flip_swaps_left_and_right() -> None:
    x = draw(4, 3, 8, 8)
    assert torch.allclose(views.cropped(x, 0.0, 1.0, generator()), x.flip(3), atol=1e-5)


@pytest.mark.parametrize("axis", [2, 3])
def test_a_crop_of_a_ramp_is_a_gentler_ramp_inside_it(axis: int) -> None:
    size, zoom = 16, 0.5
    ramp = torch.linspace(-1, 1, size).view([size if k == axis else 1 for k in range(4)]).expand(200, 3, size, size)
    found = views.cropped(ramp, zoom, 0.0, generator())
    # Half a pixel at either edge is padding, which is flat.
    slopes = (found.diff(dim=axis).narrow(axis, 1, size - 3)).flatten(1) * (size - 1) / 2
    assert torch.allclose(slopes, slopes[:, :1].expand_as(slopes), atol=1e-4)
    scale = slopes[:, 0]
    assert 1 - zoom - 1e-4 <= scale.min() < 1 - 0.9 * zoom and 1 - 0.1 * zoom < scale.max() <= 1 + 1e-4
    assert found.min() >= -1 and found.max() <= 1
    centres = found.mean((1, 2, 3))
    assert centres.min() < -0.3 and centres.max() > 0.3
    # The ramp goes from the middle of the first pixel to that of the last, and the room of a crop from edge to edge.
    assert bool((centres.abs() <= (1 - scale) * size / (size - 1) + 1e-3).all())


def test_brightness_and_contrast_are_one_line_an_image_within_their_bounds() -> None:
    x = draw(100, 3, 4, 4)
    found = views.relit(x, 0.2, 0.4, generator()).flatten(1)
    lines = [np.polyfit(a, b, 1, full=True) for a, b in zip(x.flatten(1).numpy(), found.numpy(), strict=True)]
    slopes, offsets = np.array([line[0] for line in lines]).T
    assert max(line[1][0] for line in lines) < 1e-6
    assert 0.6 <= slopes.min() < 0.65 and 1.35 < slopes.max() <= 1.4
    assert -0.2 <= offsets.min() < -0.17 and 0.17 < offsets.max() <= 0.2


def test_blur_keeps_flat_images_and_takes_a_share_of_a_peak() -> None:
    flat = torch.full((4, 3, 6, 6), 0.7)
    assert torch.allclose(views.blurred(flat, 1.0, generator()), flat)
    peak = torch.zeros(100, 1, 5, 5)
    peak[:, :, 2, 2] = 9.0
    found = views.blurred(peak, 0.5, generator())
    neighbours = found[:, 0, 1, 1]
    assert 0 <= neighbours.min() < 0.05 and 0.45 < neighbours.max() <= 0.5
    assert torch.allclose(found[:, 0, 2, 2], 9 - 8 * neighbours, atol=1e-5)


def test_noise_has_the_standard_deviation_that_is_asked_for() -> None:
    found = views.noisy(torch.ones(100, 3, 16, 16), 0.1, generator()) - 1
    assert float(found.std()) == pytest.approx(0.1, rel=0.02)
    assert abs(float(found.mean())) < 5 * 0.1 / found.numel() ** 0.5


def test_a_projector_is_drawn_from_its_generator_within_torchs_bounds() -> None:
    first, again, other = (simclr.create_projector(16, 9, 4, generator(seed)) for seed in (0, 0, 1))
    assert same(pack(first), pack(again))
    assert not same(pack(first), pack(other))
    assert first(draw(5, 16)).shape == (5, 4)
    for layer in (first[0], first[2]):
        assert 0.8 * layer.in_features**-0.5 < float(layer.weight.detach().abs().max()) <= layer.in_features**-0.5


def test_the_head_comes_to_the_optimum_of_logistic_regression_and_the_encoder_stands_still() -> None:
    model, ctx = learnt(), context()
    assert ctx.target is not None
    before = pack(model)
    training = Training(optimizer="adam", lr=3e-2, schedule="linear", steps=1500, batch_size=120, weight_decay=1e-2)
    fit_head(model, ctx.target, training, generator())
    after = pack(model)
    assert {name for name in after if not torch.equal(after[name], before[name])} == {"head.weight", "head.bias"}
    with torch.no_grad():
        seen = features(model.eval(), ctx.target.x)
        ours = model(ctx.target.x).softmax(1).numpy()
    oracle = LogisticRegression(C=1 / (1e-2 * len(seen)), max_iter=1000).fit(seen.numpy(), ctx.target.y.numpy())
    # The oracle leaves the biases out of the decay, which moves the probabilities by little.
    assert np.abs(ours - oracle.predict_proba(seen.numpy())).max() < 0.02


def test_labels_and_the_given_model_reach_the_head_alone_or_nothing() -> None:
    ctx = context()
    assert ctx.source is not None
    relabelled = replace(ctx, source=Split(ctx.source.x, ctx.source.y.roll(1)))
    released = pack(protect(ctx))
    other = pack(protect(relabelled))
    assert {name for name in released if not torch.equal(released[name], other[name])} == {"head.weight", "head.bias"}
    assert same(released, pack(protect(ctx, model=ctx.fresh(3))))


def test_the_seed_of_the_context_alone_decides() -> None:
    ctx = context()
    released = under_global_seeds(lambda: protect(ctx))
    assert same(*released)
    assert not same(released[0], pack(protect(replace(ctx, seed=1))))


def test_pretraining_brings_views_of_unseen_images_together() -> None:
    ctx = context()
    assert ctx.source_val is not None
    ours = defense("simclr", pretrain_steps=60, pretrain_batch_size=32, probe_steps=60)
    model = learnt()

    def loss(projector: nn.Module) -> float:
        assert ctx.source_val is not None
        with torch.no_grad():
            pair = torch.cat([ours._view(ctx.source_val.x, generator(seed)) for seed in (0, 1)])
            return float(simclr.nt_xent(projector(features(model.eval(), pair)), 0.2))

    start = loss(defense("simclr", pretrain_steps=1, pretrain_lr=1e-9)._pretrained(model, ctx))
    assert loss(ours._pretrained(model, ctx)) < start - 0.5
    ours._probe(model, ctx)
    assert accuracy(model, ctx.source_val) > 0.9


@pytest.mark.parametrize("classes", [2, 5])
def test_any_number_of_classes_and_few_samples_are_no_obstacle(classes: int) -> None:
    ctx = context(classes=classes)
    assert ctx.source is not None
    few = replace(ctx, source=ctx.source.subset(torch.arange(classes)))
    assert head(protect(few, model=ctx.fresh(classes))).out_features == classes


@on_timm_networks
def test_it_runs_on_timm_networks(arch: Arch) -> None:
    ctx = context(arch=arch)
    assert pack(protect(ctx, model=ctx.fresh(3), pretrain_steps=2, probe_steps=2))


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": 0}, {"zoom": 1.0}, {"flip": 2}, {"pretrain_batch_size": 1}, {"probe_lr": 0}, {"noise": -1}],
)
def test_bad_hyper_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        defense("simclr", **wrong)
