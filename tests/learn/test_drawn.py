"""Distances between sets of images against SciPy's matrix root, and pictures read back."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import polynomial_kernel

from ntbench.learn import drawn
from ntbench.learn.drawn import FEATURES, picture, principal


def images(count: int, seed: int, channels: int = 1) -> torch.Tensor:
    return torch.randn(count, channels, 4, 4, generator=torch.Generator().manual_seed(seed))


def frechet(found: torch.Tensor, real: torch.Tensor) -> float:
    features = principal(real)
    return drawn.frechet(features(found), features(real))


def kid(found: torch.Tensor, real: torch.Tensor) -> float:
    features = principal(real)
    return drawn.kid(features(found), features(real))


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


def test_two_normal_distributions_lie_apart_as_their_closed_form_says() -> None:
    deviations = torch.tensor([[1.0, 3.0, 0.5, 2.0], [2.0, 0.5, 1.0, 1.0]]).reshape(2, 1, 1, 2, 2)
    draws = torch.randn(2, 20000, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * deviations
    shift = torch.tensor([0.0, 3.0, 0.0, 0.0]).reshape(1, 1, 2, 2)
    # Of independent pixels the distance is that of the means and of the deviations.
    expected = float(shift.square().sum() + (deviations[0] - deviations[1]).square().sum())
    assert frechet(draws[0] + shift, draws[1]) == pytest.approx(expected, rel=0.02)


def test_the_kernel_distance_is_that_of_scikit_learns_kernel() -> None:
    found, real = images(60, 0) * 0.5 + 0.2, images(701, 1)
    components = PCA().fit(real.flatten(1).double().numpy())
    x, y = (components.transform(part.flatten(1).double().numpy()) for part in (found, real))
    within = [polynomial_kernel(z, degree=3, gamma=1 / 16, coef0=1) for z in (x, y)]
    expected = sum((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in within)
    expected -= 2 * polynomial_kernel(x, y, degree=3, gamma=1 / 16, coef0=1).mean()
    assert kid(found, real) == pytest.approx(expected, rel=1e-6)


def test_the_kernel_distance_is_0_on_average_and_below_it_for_the_same_images() -> None:
    same = [kid(images(40, 2 * seed), images(40, 2 * seed + 1)) for seed in range(60)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(60) and min(same) < 0
    assert kid(images(40, 0), images(40, 0)) < 0 < max(same) < kid(images(40, 0) + 1, images(40, 1))
    with pytest.raises(ValueError, match="take two of each"):
        kid(images(1, 0), images(40, 1))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_shows_images_in_rows(channels: int) -> None:
    shown = torch.linspace(-1.2, 1.2, 6 * channels * 16).reshape(6, channels, 4, 4)
    with Image.open(io.BytesIO(base64.b64decode(picture(shown, 3)))) as found:
        pixels = np.asarray(found).reshape(8, 12, channels)
    expected = (shown[4].clamp(-1, 1) + 1) * 127.5
    assert pixels[4:, 4:8].transpose(2, 0, 1) == pytest.approx(expected.round().numpy())
