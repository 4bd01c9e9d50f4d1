"""Running statistics of batch norm: estimated anew on images that an attacker has, or kept while a model trains."""

import math
from typing import Self

import torch
from torch import Tensor, nn

from ._adaptation import SCORING_BATCH, batch_norms, batch_statistics


@torch.no_grad()
def reestimate(model: nn.Module, x: Tensor) -> None:
    """Replace running statistics by averages over batches of images, with all weights frozen.

    Every batch has the same share, and each norm sees what the norms below it make of the batch by its own statistics.
    The model is left in eval mode; one without batch norm stays as it is.
    """
    layers = batch_statistics(model)
    usual = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    if layers:
        # Parts of equal size, since a last one of a single image has no variance.
        for part in x.tensor_split(math.ceil(len(x) / SCORING_BATCH)):
            model(part)
    for layer, momentum in zip(layers, usual, strict=True):
        layer.momentum = momentum
    model.eval()


class Still(nn.Module):
    """A model that trains while its batch norms keep their running statistics and normalise by them."""

    def __init__(self, model: nn.Module) -> None:
        """Take a model, which stays the same object."""
        super().__init__()
        self.model = model

    def train(self, mode: bool = True) -> Self:
        """Set the mode of everything but batch norms, which stay in eval mode."""
        super().train(mode)
        for layer in batch_norms(self.model):
            layer.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, [n, classes]."""
        return self.model(x)  # type: ignore[no-any-return]
