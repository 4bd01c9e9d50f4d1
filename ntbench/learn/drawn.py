"""Images that models make: how far they lie from real ones, and some of them as a picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

FEATURES = 32
"""Principal components of real images in which distances are measured: no network has to be there or be trained."""
ROWS = 500
"""Images whose kernels are held at once."""
Array = NDArray[np.float64]
Features = Callable[[Tensor], Array]
"""Gives the features [n, d] of images [n, c, s, s] in [-1, 1]."""


def frechet(found: Array, truth: Array) -> float:
    """Return the squared Frechet distance between two normal distributions fitted to features [n, d] and [m, d].

    d = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), Heusel et al. 2017, equation 6; 0 where means and covariances
    agree, in squares of the features' unit.
    """
    a, b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (found, truth))
    # The product of two covariances has eigenvalues of at least 0, but for rounding.
    root = np.sqrt(np.linalg.eigvals(a @ b).real.clip(0)).sum()
    apart = found.mean(axis=0) - truth.mean(axis=0)
    return float(apart @ apart + np.trace(a) + np.trace(b) - 2 * root)


def kid(x: Array, y: Array) -> float:
    """Return the kernel distance between features [n, d] and [m, d].

    The unbiased estimate of the squared MMD under k(x, y) = (x . y / d + 1)^3 (Binkowski et al. 2018, section 4): 0 on
    average where both come from one distribution, and below 0 by chance. ValueError for one image.
    """
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise ValueError(f"{n} images and {m} real ones have no kernel distance; take two of each at least")
    within = sum((_kernel_sum(z, z) - _on_diagonal(z)) / (len(z) * (len(z) - 1)) for z in (x, y))
    return within - 2 * _kernel_sum(x, y) / (n * m)


def _kernel_sum(x: Array, y: Array) -> float:
    """Return the sum of k over all pairs, by parts: thousands of real images are millions of pairs."""
    return sum(float(((x[i : i + ROWS] @ y.T / x.shape[1] + 1) ** 3).sum()) for i in range(0, len(x), ROWS))


def _on_diagonal(x: Array) -> float:
    return float((((x * x).sum(axis=1) / x.shape[1] + 1) ** 3).sum())


def principal(real: Tensor) -> Features:
    """Return the first principal components of real images' pixels as features; the unit is a pixel in [-1, 1]."""
    pixels = _pixels(real)
    mean = pixels.mean(axis=0)
    axes = np.linalg.svd(pixels - mean, full_matrices=False)[2][:FEATURES].T
    return lambda images: (_pixels(images) - mean) @ axes


def _pixels(images: Tensor) -> Array:
    return images.flatten(1).double().numpy()


def picture(images: Tensor, columns: int) -> str:
    """Return images [n, c, s, s] in [-1, 1] in rows of so many, as base64 of a PNG."""
    n, c, s, _ = images.shape
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
    grid = pixels.reshape(n // columns, columns, c, s, s).transpose(0, 3, 1, 4, 2)
    whole = grid.reshape(n // columns * s, columns * s, c)
    buffer = io.BytesIO()
    Image.fromarray(whole[..., 0] if c == 1 else whole).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()
