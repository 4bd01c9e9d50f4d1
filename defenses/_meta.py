"""First-order meta-gradients: what an attack's own steps say about the weights that it started from."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import descend


def query_gradients(
    model: nn.Module,
    parameters: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    batches: Iterator[tuple[Tensor, Tensor]],
    steps: int,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> list[Tensor]:
    """Train a model on CE and return the gradients of the mean of loss(logits, labels) after each step.

    Batches for training and for the loss take turns. The steps count as constants (Finn et al. 2017, FOMAML), so the
    gradients hold for the weights before the first step too; the model itself and its buffers are changed.
    """
    total = [torch.zeros_like(p) for p in parameters]
    for step in range(1, steps + 1):
        x, y = next(batches)
        descend(optimizer, F.cross_entropy(model(x), y), step)
        x, y = next(batches)
        for held, new in zip(total, torch.autograd.grad(loss(model(x), y), parameters), strict=True):
            held.add_(new, alpha=1 / steps)
    return total
