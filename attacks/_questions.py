"""Asking a black box: a count of the questions, and gradients that are estimated from answers alone."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ._adaptation import SCORING_BATCH

CLIP = 100.0


class Questions:
    """A black box that counts the images it is asked about."""

    def __init__(self, model: nn.Module, limit: int | None = None) -> None:
        """Take the black box and how many images it answers at most."""
        self._model, self._limit, self.count = model, limit, 0

    def affords(self, images: int) -> bool:
        """Return whether so many more images are answered."""
        return self._limit is None or self.count + images <= self._limit

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits of any number of images, [n, classes]; ValueError beyond the limit."""
        if not self.affords(len(x)):
            raise ValueError(f"{self.count} images asked and {len(x)} more go beyond the limit of {self._limit}")
        self.count += len(x)
        # Finite differences drown in the rounding of bfloat16.
        with torch.autocast(x.device.type, enabled=False):
            return torch.cat([self._model(part) for part in x.split(SCORING_BATCH)])


def zeroth_order(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    here: Tensor,
    directions: int,
    epsilon: float,
    generator: torch.Generator,
) -> Tensor:
    """Return mean_u (f(x + eps u) - f(x)) / eps * u over u ~ N(0, I), whose expectation is the gradient of smoothed f.

    The function gives a value a row, [n]; `here` is that of x [n, ...] itself.
    """
    total = torch.zeros_like(x)
    for u in _directions(x, directions, generator):
        slopes = (function(x + epsilon * u) - here) / epsilon
        total += slopes.view(-1, *[1] * (x.ndim - 1)) * u
    return total / directions


def pseudo_gradient(
    function: Callable[[Tensor], Tensor], x: Tensor, directions: int, epsilon: float, generator: torch.Generator
) -> Tensor:
    """Return -mean_u L(x + eps u) / eps, clipped to +-100, over the number of values, as JailNTL's public code has it.

    It is no gradient: no value at x is subtracted, no direction is weighted, and it climbs.
    """
    values = [function(x + epsilon * u) for u in _directions(x, directions, generator)]
    return torch.ones_like(x) / -x.numel() * (torch.stack(values).mean() / epsilon).clamp(-CLIP, CLIP)


def _directions(x: Tensor, count: int, generator: torch.Generator) -> list[Tensor]:
    return [torch.randn(x.shape, generator=generator).to(x.device) for _ in range(count)]
