"""Weighted sums of two models of one architecture."""

import torch
from torch import Tensor, nn

from ._normalisation import reestimate


@torch.no_grad()
def blend(model: nn.Module, other: nn.Module, own: float, others: float, x: Tensor) -> None:
    """Set every parameter to own * theta + others * theta_other.

    Running statistics of batch norm belong to neither then, and are estimated anew on images.
    """
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        mine.mul_(own).add_(theirs, alpha=others)
    reestimate(model, x)
