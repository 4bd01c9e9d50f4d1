"""Weak and strong views of a batch of images: moves, crops, mirrors, colours and blur, drawn image by image.

Every random number comes from a CPU generator; images [n, 3, s, s] in [-1, 1] stay such, in channels_last.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)


def weak(x: Tensor, generator: torch.Generator, flip: bool = False) -> Tensor:
    """Return every image moved by a sixteenth of its side, in whole pixels and by at least one; its border repeats."""
    count, size = len(x), x.shape[-1]
    reach = max(1, size // 16)
    pixels = torch.randint(-reach, reach + 1, (count, 2), generator=generator)
    return _crop(x, torch.ones(count), 2 * pixels / size, generator, flip)


def strong(x: Tensor, generator: torch.Generator, flip: bool = False, smallest: float = 0.5) -> Tensor:
    """Return a square crop of every image, of an area in [smallest, 1], with jittered colours, half of them blurred."""
    side = _uniform(len(x), smallest, 1.0, generator).sqrt()
    centre = (1 - side)[:, None] * torch.empty(len(x), 2).uniform_(-1, 1, generator=generator)
    views = jitter(_crop(x, side, centre, generator, flip), generator)
    return torch.where(_chosen(views, 0.5, generator), blur(views), views)


def jitter(x: Tensor, generator: torch.Generator, strength: float = 0.4) -> Tensor:
    """Return images whose brightness, contrast and saturation change in 8 of 10, and whose colours go in 2 of 10."""
    bright, contrast, saturation = (
        _uniform(len(x), 1 - strength, 1 + strength, generator).to(x.device)[:, None, None, None] for _ in range(3)
    )
    y = ((x + 1) / 2 * bright).clamp(0, 1)
    mean = grey(y).mean((1, 2, 3), keepdim=True)
    y = (mean + contrast * (y - mean)).clamp(0, 1)
    y = (grey(y) + saturation * (y - grey(y))).clamp(0, 1)
    y = torch.where(_chosen(x, 0.8, generator), 2 * y - 1, x)
    return torch.where(_chosen(x, 0.2, generator), grey(y).expand_as(y), y)


def grey(x: Tensor) -> Tensor:
    """Return the luma of colour images, [n, 1, s, s]."""
    return (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def blur(x: Tensor) -> Tensor:
    """Return images smoothed by the binomial 3x3 kernel; their border repeats."""
    row = x.new_tensor([0.25, 0.5, 0.25])
    kernel = (row[:, None] * row).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=x.shape[1])


def _crop(x: Tensor, side: Tensor, centre: Tensor, generator: torch.Generator, flip: bool) -> Tensor:
    """Cut out squares of relative sides [n] around centres [n, 2] in [-1, 1], scaled to the size of the image."""
    mirror = 1 - 2 * (torch.rand(len(x), generator=generator) < (0.5 if flip else 0.0)).float()
    maps = torch.zeros(len(x), 2, 3)
    maps[:, 0, 0], maps[:, 1, 1], maps[:, :, 2] = mirror * side, side, centre
    grid = F.affine_grid(maps.to(x.device), list(x.shape), align_corners=False)
    views = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    return views.contiguous(memory_format=torch.channels_last)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.empty(count).uniform_(low, high, generator=generator)


def _chosen(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return which images are chosen, [n, 1, 1, 1]."""
    return (torch.rand(len(x), generator=generator) < share).to(x.device)[:, None, None, None]
