"""NTL without a target: the nets, what stands still, and that a label never leaves its image."""

from __future__ import annotations

import copy
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.ndimage import convolve
from torch import Tensor, nn
from toys import CNN, context, defense, draw, on_timm_networks, pretrained, same, under_global_seeds

from ntbench.learn.models import head, pack
from ntbench.learn.scoring import accuracy
from ntbench.method import Context
from ntbench.tasks.data import Split
from ntbench.types import Arch

nets = import_module("ntbench.defenses._generator")
near = import_module("ntbench.defenses._neighbours")

CHEAP: dict[str, Any] = {
    "gan_steps": 4,
    "augment_steps": 2,
    "rounds": 1,
    "images_per_direction": 8,
    "steps": 4,
    "width": 4,
    "tolerance": 1.0,
    "carried": 0.0,
}


def method(**params: Any) -> Any:
    return defense("ntl_source_only", **params)


def smooth(classes: int, count: int, seed: int, size: int = 16) -> Split:
    """Return noisy copies of one smooth pattern a class, in [-1, 1], which a generator learns fast."""
    patterns = nn.functional.interpolate(draw(classes, 3, 4, 4, seed=7).tanh(), size=(size, size), mode="nearest")
    y = torch.arange(count) % classes
    x = 0.8 * patterns[y] + 0.1 * draw(count, 3, size, size, seed=seed)
    return Split(x.contiguous(memory_format=torch.channels_last), y)


def source_only(arch: Arch = CNN) -> Context:
    return replace(context(5, arch=arch), source=smooth(3, 120, 1), source_val=smooth(3, 60, 3), target=None)


def make_pair(classes: int = 3, size: int = 16, width: int = 8) -> Any:
    noise = torch.Generator().manual_seed(0)
    made, judge = nets.Generator(classes, 8, size, width), nets.Discriminator(classes, size, width)
    for net in (made, judge):
        nets.initialise(net, noise)
    return near.Pair(made, judge, noise)


def batches_of(data: Split) -> Any:
    return data.batches(32, torch.Generator().manual_seed(5))


@pytest.mark.parametrize("size", [8, 16, 28, 32, 33, 50, 64])
def test_nets_fit_every_image_size(size: int) -> None:
    pair = make_pair(5, size, 4)
    images = pair.made(torch.arange(5), pair.noise)
    assert images.shape == (5, 3, size, size)
    assert images.abs().max() <= 1
    found, realness, logits = pair.judge(images)
    assert (found.ndim, realness.shape, logits.shape) == (2, (5,), (5, 5))


def test_initialise_draws_as_torch_does_but_from_the_generator() -> None:
    layers: list[Any] = [nn.Linear(50, 40), nn.Conv2d(8, 16, 3), nn.ConvTranspose2d(8, 16, 4)]
    for layer in layers:
        # Torch's own draw has the same bound, that of kaiming_uniform_ with a = sqrt(5).
        own = layer.weight.abs().max().item()
        nets.initialise(layer, torch.Generator().manual_seed(0))
        first = layer.weight.detach().clone()
        assert first.abs().max().item() == pytest.approx(own, rel=0.05)
        nets.initialise(layer, torch.Generator().manual_seed(0))
        assert torch.equal(first, layer.weight)


@pytest.mark.parametrize(("size", "kernel"), [(16, [1]), (32, [1, 2, 1]), (64, [1, 4, 6, 4, 1])])
def test_blur_is_the_public_codes_filter_at_its_image_sizes(size: int, kernel: list[int]) -> None:
    images = draw(2, 3, size, size)
    line = np.array(kernel) / sum(kernel)
    expected = convolve(images.numpy(), np.outer(line, line)[None, None], mode="mirror")
    assert np.allclose(nets.blur(images).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("direction", range(4))
def test_the_first_quarters_of_hidden_channels_stand_still(direction: int) -> None:
    pair, data = make_pair(size=32), smooth(3, 64, 1, 32)
    before, judge = copy.deepcopy(pair.made), pack_weights(pair.judge.requires_grad_(False))
    moved = near.leave(pair, batches_of(data), direction, 0.5, steps=3, lr=1e-2).made
    for old, new in zip(before.decoder.hidden.parameters(), moved.decoder.hidden.parameters(), strict=True):
        # Transposed convolutions have their output channels second.
        same = (old == new).movedim(1, 0).flatten(1) if old.ndim == 4 else (old == new)[:, None]
        frozen = len(same) * direction // 4
        assert same[:frozen].all()
        assert not same[frozen:].all(1).any()
    assert not torch.equal(before.decoder.paint.weight, moved.decoder.paint.weight)
    assert all(torch.equal(a, b) for a, b in zip(judge, pair.judge.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), pair.made.parameters(), strict=True))


def pack_weights(net: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def test_leaving_goes_as_far_as_its_bound_allows() -> None:
    data = smooth(3, 64, 1)
    pair = make_pair()
    near.learn(pair, batches_of(data), 150, 5e-3)
    pair.judge.requires_grad_(False)

    def distance(bound: float) -> float:
        moved = near.leave(pair, batches_of(data), 0, bound, steps=30, lr=5e-3)
        drawn = moved.made(data.y, pair.noise)
        return float(near.mmd(pair.judge(drawn)[0], pair.judge(data.x)[0]).detach())

    assert distance(2.0) > distance(0.05) + 0.5


def test_the_way_is_measured_from_where_it_starts() -> None:
    """A bound below the distance between two batches of one domain leaves a gradient."""
    data = smooth(3, 64, 1)
    pair = make_pair()
    near.learn(pair, batches_of(data), 150, 5e-3)
    pair.judge.requires_grad_(False)
    start = near.distance(pair, batches_of(data))
    bound = start / 4
    ways = [near.leave(pair, batches_of(data), 0, b, steps=10, lr=2e-3) for b in (1e-9, bound)]
    assert near.distance(ways[1], batches_of(data)) > near.distance(ways[0], batches_of(data))


def test_images_that_do_not_carry_their_labels_are_told_before_any_training() -> None:
    ctx = source_only()
    ours = method(**CHEAP | {"carried": 0.9, "gan_steps": 1})
    with pytest.raises(ValueError, match=r"0\.\d\d carry their label .* chance is 0\.33 .*gan_steps=1"):
        ours.protect(pretrained(ctx, steps=30), ctx)


def test_every_image_carries_the_label_that_it_was_drawn_for() -> None:
    pair, drawn = make_pair(), []

    def note(net: nn.Module, given: tuple[Any, ...], image: Tensor) -> None:
        # Batches of 32 are those by which the way is measured.
        if not torch.is_grad_enabled() and len(given[0]) == 5:
            drawn.append((image, given[0]))

    pair.made.register_forward_hook(note)
    made = near.neighbours(pair, batches_of(smooth(3, 64, 1)), rounds=2, reach=0.1, steps=1, lr=1e-3, count=5)
    assert len(made) == 2 * 4 * 5 == len(made.x)
    assert torch.equal(made.x, nets.blur(torch.cat([image for image, _ in drawn])))
    assert torch.equal(made.y, torch.cat([labels for _, labels in drawn]))


def test_a_trained_generator_draws_the_class_that_it_is_asked_for() -> None:
    ctx = source_only()
    assert ctx.source is not None
    pair = make_pair()
    near.learn(pair, batches_of(ctx.source), 300, 5e-3)
    made = near.draw(pair.made, torch.arange(60) % 3, pair.noise)
    assert not made.x.requires_grad
    assert accuracy(pretrained(ctx, steps=30), made) > 0.9


def test_it_needs_nothing_of_the_target_and_makes_its_own() -> None:
    ctx = source_only()
    model = pretrained(ctx, steps=30)
    assert ctx.source_val is not None
    start = accuracy(model, ctx.source_val)
    settings = {
        "gan_steps": 400,
        "gan_lr": 5e-3,
        "rounds": 2,
        "augment_steps": 4,
        "images_per_direction": 32,
        "steps": 60,
    }
    ours = method(**settings, lr=2e-3, width=8)
    made = ours._neighbourhood(model, ctx)
    before = accuracy(model, made)
    released = ours.protect(model, ctx)
    assert accuracy(released, ctx.source_val) >= start - 0.02
    assert accuracy(released, made) < before - 0.4
    assert not (type(ours).needs_target or type(ours).needs_target_labels)


@pytest.mark.parametrize("switch", [{}, {"scale": "klmean", "batches": "separate"}])
def test_the_seed_of_the_context_alone_decides(switch: dict[str, Any]) -> None:
    ctx = source_only()
    model, ours = pretrained(ctx, steps=30), method(**CHEAP, **switch)
    released = under_global_seeds(lambda: ours.protect(copy.deepcopy(model), ctx))
    assert same(*released)
    assert not torch.equal(pack(model)["head.weight"], released[0]["head.weight"])


@on_timm_networks
def test_any_timm_network_is_protected(arch: Arch) -> None:
    ctx = source_only(arch)
    model = ctx.fresh(3)
    released = method(**CHEAP).protect(model, ctx)
    assert head(released).out_features == 3
    assert pack(released).keys() == pack(ctx.fresh(3)).keys()


def test_a_lost_source_ends_with_the_value_and_the_remedy() -> None:
    ctx = source_only()
    with pytest.raises(ValueError, match="tolerance"):
        method(**CHEAP | {"tolerance": 0.0, "lr": 1.0, "alpha": 10.0, "repair_steps": 0}).protect(
            pretrained(ctx, steps=30), ctx
        )


BAD: list[dict[str, Any]] = [
    {"width": 6},
    {"latent": 0},
    {"gan_lr": -1e-3},
    {"gan_batch_size": 1},
    {"rounds": 0},
    {"reach": 0.0},
    {"images_per_direction": 0},
    {"scale": "bits"},
    {"batches": "both"},
    {"tolerance": 2.0},
    {"direction": 4},
]


@pytest.mark.parametrize("params", BAD)
def test_bad_hyper_parameters_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(params))):
        method(**params)
