"""First-order meta-gradients: what an attack's own steps say about the weights that it started from."""

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import descend, head, reset_head

from ._guard import SourceGuard

Batches = Iterator[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]


def attackers_copy(
    model: nn.Module, classes: int, reinit: float, generator: torch.Generator
) -> tuple[nn.Module, list[Tensor], list[Tensor]]:
    """Return a copy to attack, those of its parameters that it shares with the model, and the model's own of them.

    The copy's head is drawn anew with probability `reinit`, and always where it lacks the number of classes; a head
    that was drawn anew is not shared.
    """
    clone = copy.deepcopy(model)
    origin = dict(zip(clone.parameters(), model.parameters(), strict=True))
    if torch.rand((), generator=generator) < reinit or head(clone).out_features != classes:
        reset_head(clone, classes, generator)
    shared = [p for p in clone.parameters() if p in origin]
    return clone, list(shared), [origin[p] for p in shared]


def attack_steps(
    model: nn.Module,
    parameters: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    query: Batches,
    steps: int,
    loss: Loss,
    every: int = 1,
) -> Iterator[list[Tensor]]:
    """Train a model on CE and yield the gradients of loss(logits, labels) on a query batch after every `every` steps.

    The model and its buffers are changed; `query` may be the iterator of the training batches, which then take turns.
    """
    for step in range(1, steps + 1):
        x, y = next(batches)
        descend(optimizer, F.cross_entropy(model(x), y), step)
        if step % every == 0:
            x, y = next(query)
            yield list(torch.autograd.grad(loss(model(x), y), parameters))


def query_gradients(
    model: nn.Module,
    parameters: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    steps: int,
    loss: Loss,
) -> list[Tensor]:
    """Train a model on CE and return the gradients of the mean of loss(logits, labels) after each step.

    Batches for training and for the loss take turns. The steps count as constants (Finn et al. 2017, FOMAML), so the
    gradients hold for the weights before the first step too; the model itself and its buffers are changed.
    """
    gradients = attack_steps(model, parameters, optimizer, batches, batches, steps, loss)
    return weighted_sum(parameters, gradients, [1 / steps] * steps)


def weighted_sum(
    parameters: Sequence[Tensor], gradients: Iterator[list[Tensor]], weights: Sequence[float]
) -> list[Tensor]:
    """Return the sum over steps of gradients like the parameters, each step with its weight."""
    total = [torch.zeros_like(p) for p in parameters]
    for weight, step in zip(weights, gradients, strict=True):
        for held, new in zip(total, step, strict=True):
            held.add_(new, alpha=weight)
    return total


def linear(parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """Return sum_i <g_i, p_i>, the loss that has given gradients wherever its parameters are."""
    return torch.stack([(p * g).sum() for p, g in zip(parameters, gradients, strict=True)]).sum()


def keep_source(
    guard: SourceGuard, optimizer: torch.optim.Optimizer, loss: Loss, source: Batches, steps: int, repair: int
) -> None:
    """Take steps down loss(x, y) on source, and `repair` more where the guard does not hold after them."""
    for count in (steps, repair):
        for step in range(1, count + 1):
            descend(optimizer, loss(*next(source)), step)
        if guard.holds():
            return
