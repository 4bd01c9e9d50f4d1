"""Distances between sets of images against SciPy's matrix root, and pictures read back."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm

from ntbench.learn.drawn import FEATURES, frechet, picture


def images(count: int, seed: int, channels: int = 1) -> torch.Tensor:
    return torch.randn(count, channels, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_the_distance_is_that_of_two_normal_distributions() -> None:
    found, real = images(60, 0) * 0.5 + 0.2, images(80, 1)
    # Sixteen pixels have no more than sixteen components, so that nothing is left out.
    assert FEATURES > 16
    one, other = (x.flatten(1).double().numpy() for x in (found, real))
    a, b = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    mean = one.mean(axis=0) - other.mean(axis=0)
    expected = mean @ mean + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet(found, real) == pytest.approx(expected, rel=1e-6)


def test_images_are_no_distance_from_themselves_and_a_shift_counts_by_its_square() -> None:
    real = images(50, 0)
    assert frechet(real, real) == pytest.approx(0, abs=1e-6)
    assert frechet(real + 0.5, real) == pytest.approx(16 * 0.25, rel=1e-6)


def test_directions_in_which_real_images_do_not_differ_are_left_out() -> None:
    # 64 pixels, of which the first 32 components are all that 33 images span.
    real = torch.randn(33, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    beside = torch.linalg.svd((real - real.mean(0)).flatten(1))[2][-1].reshape(1, 1, 8, 8)
    assert frechet(real + 3 * beside, real) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_shows_images_in_rows(channels: int) -> None:
    shown = torch.linspace(-1.2, 1.2, 6 * channels * 16).reshape(6, channels, 4, 4)
    with Image.open(io.BytesIO(base64.b64decode(picture(shown, 3)))) as found:
        pixels = np.asarray(found).reshape(8, 12, channels)
    expected = (shown[4].clamp(-1, 1) + 1) * 127.5
    assert pixels[4:, 4:8].transpose(2, 0, 1) == pytest.approx(expected.round().numpy())
