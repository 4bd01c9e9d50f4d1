"""Views of images: what moves, what is cut out, what stays in range, and where the random numbers come from."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from toys import domain, draw

views = import_module("ntbench.attacks._views")
BOTH = pytest.mark.parametrize("view", [views.weak, views.strong], ids=["weak", "strong"])
View = Callable[..., Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 6, size: int = 16) -> Tensor:
    return draw(count, 3, size, size).clamp(-1, 1)


def moved(x: Tensor, right: int, down: int) -> Tensor:
    """Return images [n, 3, s, s] looked at from somewhere else, their border repeated."""
    steps = torch.arange(x.shape[-1])
    rows, columns = (steps + down).clamp(0, len(steps) - 1), (steps + right).clamp(0, len(steps) - 1)
    return x[:, :, rows][:, :, :, columns]


@BOTH
@pytest.mark.parametrize(("count", "size"), [(6, 16), (1, 8), (12, 32)])
def test_views_are_images_again(view: View, count: int, size: int) -> None:
    x = images(count, size)
    before = x.clone()
    found = view(x, seeded())
    assert found.shape == x.shape and found.dtype == x.dtype and torch.equal(x, before)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert found.min() >= -1 - 1e-5 and found.max() <= 1 + 1e-5
    assert not torch.allclose(found, x)


@BOTH
def test_the_generator_alone_decides(view: View) -> None:
    x = images()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = view(x, seeded(3))
        torch.manual_seed(2)
        assert torch.equal(view(x, seeded(3)), first)
    assert not torch.allclose(view(x, seeded(4)), first)
    generator = seeded(3)
    assert torch.equal(view(x, generator), first)
    assert not torch.allclose(view(x, generator), first)


@BOTH
def test_every_image_has_a_view_of_its_own(view: View) -> None:
    twins = images(1).expand(40, -1, -1, -1)
    assert len(view(twins, seeded()).flatten(1).unique(dim=0)) >= 9


@pytest.mark.parametrize("size", [8, 16, 32])
def test_a_weak_view_is_the_image_moved_by_whole_pixels(size: int) -> None:
    x = images(64, size)
    reach = max(1, size // 16)
    offsets = [(right, down) for right in range(-reach, reach + 1) for down in range(-reach, reach + 1)]
    candidates = torch.stack([moved(x, *offset) for offset in offsets])
    gaps = (candidates - views.weak(x, seeded())).abs().amax((2, 3, 4))
    assert gaps.amin(0).max() < 1e-4
    chosen = gaps.argmin(0).unique()
    assert len(chosen) > (2 * reach + 1) ** 2 / 2 and 0 in chosen % (2 * reach + 1)


def test_images_are_mirrored_only_on_request() -> None:
    x = torch.linspace(-1, 1, 16).expand(200, 3, 16, 16)
    for view in (views.weak, views.strong):
        plain, some = (
            (found[..., 12] > found[..., 3]).all(2).all(1)
            for found in (view(x, seeded()), view(x, seeded(), flip=True))
        )
        assert plain.all() and 60 < some.sum() < 140


def test_crops_keep_the_share_that_is_asked_for() -> None:
    # On a ramp from left to right the range of a crop is its side.
    ramp = torch.linspace(-1, 1, 32).expand(300, 3, 32, 32)
    side = views._uniform(300, 0.25, 1.0, seeded()).sqrt()
    found = views._crop(ramp, side, torch.zeros(300, 2), seeded(), False)
    extent = (found.amax((1, 2, 3)) - found.amin((1, 2, 3))) / 2
    assert torch.allclose(extent, side, atol=0.07)
    assert 0.5 <= side.min() < 0.55 and 0.97 < side.max() <= 1


def test_blur_is_the_binomial_kernel() -> None:
    x = images(2, 8)
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    weights = torch.tensor([1.0, 2, 1])
    explicit = sum(
        weights[i] * weights[j] / 16 * padded[:, :, i : i + 8, j : j + 8] for i in range(3) for j in range(3)
    )
    assert torch.allclose(views.blur(x), torch.as_tensor(explicit), atol=1e-6)
    assert torch.allclose(views.blur(torch.full((1, 3, 8, 8), 0.3)), torch.tensor(0.3))


def test_grey_weighs_colours_as_luma() -> None:
    pure = torch.eye(3)[:, :, None, None].expand(3, 3, 2, 2)
    assert torch.allclose(views.grey(pure)[:, 0, 0, 0], torch.tensor([0.299, 0.587, 0.114]))


def test_jitter_touches_the_shares_that_it_says() -> None:
    x = images(2000, 4)
    found = views.jitter(x, seeded())
    untouched = (found == x).flatten(1).all(1).float().mean()
    colourless = (found.amax(1) - found.amin(1)).flatten(1).amax(1) < 1e-6
    assert abs(untouched - 0.2 * 0.8) < 0.03
    assert abs(colourless.float().mean() - 0.2) < 0.03


def test_jitter_of_no_strength_changes_colour_images_by_greying_alone() -> None:
    x = images(400, 4)
    found = views.jitter(x, seeded(), strength=0.0)
    same = torch.isclose(found, x, atol=1e-6).flatten(1).all(1)
    grey = torch.isclose(found, views.grey(x).expand_as(x), atol=1e-5).flatten(1).all(1)
    assert (same | grey).all() and same.any() and grey.any()


def test_views_of_a_split_feed_a_network() -> None:
    split = domain(3, seed=1, count=12, size=8)
    assert torch.isfinite(views.strong(split.x.clamp(-1, 1), seeded())).all()
