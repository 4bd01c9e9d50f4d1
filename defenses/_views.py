"""Random changes to a batch of images, drawn for every image by itself; an amount of 0 changes nothing.

All take x [n, 3, s, s] and return as much; pixels are in [-1, 1], and brightness and noise are in their unit.
"""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F


def cropped(x: Tensor, zoom: float, flip: float, generator: Generator) -> Tensor:
    """Return a square of every image, of at least 1 - `zoom` of its side, at full size; left and right swap by chance.

    The square lies anywhere inside the image, which shifts what is on it.
    """
    scale = 1 - zoom * _uniform(x, generator)
    mirror = 1 - 2 * (_uniform(x, generator) < flip).to(x.dtype)
    right, down = ((1 - scale) * _symmetric(x, generator) for _ in range(2))
    nil = torch.zeros_like(scale)
    affine = torch.cat([scale * mirror, nil, right, nil, scale, down], 1).view(-1, 2, 3)
    grid = F.affine_grid(affine, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def relit(x: Tensor, brightness: float, contrast: float, generator: Generator) -> Tensor:
    """Return images times 1 +- `contrast`, plus +- `brightness`; both amounts are the largest that occur."""
    return x * (1 + contrast * _symmetric(x, generator)) + brightness * _symmetric(x, generator)


def blurred(x: Tensor, blur: float, generator: Generator) -> Tensor:
    """Return images mixed with their 3x3 averages, which get a share of at most `blur`."""
    smooth = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    return x + blur * _uniform(x, generator) * (smooth - x)


def noisy(x: Tensor, noise: float, generator: Generator) -> Tensor:
    """Return images plus Gaussian noise of standard deviation `noise`."""
    return x + noise * torch.randn(x.shape, generator=generator).to(x)


def _uniform(x: Tensor, generator: Generator) -> Tensor:
    """Return one number in [0, 1) an image, [n, 1, 1, 1]."""
    return torch.rand(len(x), 1, 1, 1, generator=generator).to(x)


def _symmetric(x: Tensor, generator: Generator) -> Tensor:
    return 2 * _uniform(x, generator) - 1
