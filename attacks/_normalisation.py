"""Running statistics of batch norm, estimated anew on the images that an attacker has."""

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from ._adaptation import SCORING_BATCH, batch_statistics


@torch.no_grad()
def reestimate(model: nn.Module, x: Tensor) -> list[BatchNorm]:
    """Replace running statistics by averages over batches of images, with all weights frozen; return the norms.

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
    return layers
