"""First-order meta-gradients: what an attack's own steps say about the weights that it started from."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import Field, Optimizer, descend, head, reset_head

Batches = Iterator[tuple[Tensor, Tensor]]
Rate = Annotated[float, Field(gt=0)]
Attacker = tuple[Optimizer, Rate, Rate]
"""An optimizer, its lowest and its highest rate."""
Loss = Callable[[Tensor, Tensor], Tensor]


def check_attackers(attackers: Sequence[Attacker]) -> None:
    """Raise ValueError where an attacker's lowest rate does not come first."""
    if any(low > high for _, low, high in attackers):
        raise ValueError(f"attackers={list(attackers)} must give each optimizer's lowest rate first")


def drawn_attacker(attackers: Sequence[Attacker], chance: torch.Generator) -> tuple[str, float]:
    """Return one of some optimizers, and a rate between its lowest and its highest, uniform in the logarithm."""
    name, slow, fast = attackers[int(torch.randint(len(attackers), (), generator=chance))]
    return name, slow * (fast / slow) ** float(torch.rand((), generator=chance))


def attackers_copy(
    model: nn.Module, classes: int, reinit: float, chance: torch.Generator, redraw: float = 0.0
) -> tuple[nn.Module, list[Tensor], list[Tensor]]:
    """Return a copy to attack, those of its parameters that it shares with the model, and the model's own of them.

    The copy's head is drawn anew with probability `reinit`, and always where it lacks the number of classes; with
    probability `redraw` all layers behind a random one are as well. What was drawn anew is not shared.
    """
    clone = copy.deepcopy(model)
    origin = dict(zip(clone.parameters(), model.parameters(), strict=True))
    if torch.rand((), generator=chance) < reinit or head(clone).out_features != classes:
        reset_head(clone, classes, chance)
    anew = set(_redrawn(clone, chance)) if redraw and torch.rand((), generator=chance) < redraw else set()
    shared = [p for p in clone.parameters() if p in origin and p not in anew]
    return clone, list(shared), [origin[p] for p in shared]


def _redrawn(model: nn.Module, chance: torch.Generator) -> list[Tensor]:
    """Draw all layers behind a random one anew, as torch draws them, and return their parameters."""
    layers = [m for m in model.modules() if list(m.parameters(recurse=False)) and hasattr(m, "reset_parameters")]
    first = int(torch.randint(1, max(2, len(layers)), (), generator=chance))
    seed = int(torch.randint(2**31, (), generator=chance))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in layers[first:]:
            layer.reset_parameters()  # type: ignore[operator]
    return [p for layer in layers[first:] for p in layer.parameters(recurse=False)]


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
