"""Attacks with a loop of their own: the frame in which they take a step a batch, whatever the step is."""

from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ntbench.method import Attack, Context, Field, Split, descend

from ._adaptation import check_label_space

Loss = Callable[[int, Tensor, Tensor], Tensor]
Step = Callable[[int, Tensor, Tensor], None]
"""Takes a step, given how many were taken, on images [b, 3, s, s] at positions [b] of their split; a loss likewise."""


class Stepwise(Attack):
    """Takes steps on what it holds of the target, or else of the source, until the budget ends; no label stops it."""

    batch_size: int = Field(default=32, ge=1)

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        """Yield the model after every step; ValueError where class counts differ."""
        check_label_space(model, ctx)
        data = ctx.source if self.access.target is None else ctx.target
        assert data is not None
        step = self.steps_of(model, ctx)
        batches = indexed_batches(data, self.batch_size, ctx.generator("batches"))
        for taken, (x, own) in enumerate(islice(batches, ctx.steps)):
            step(taken, x, own)
            yield model

    def steps_of(self, model: nn.Module, ctx: Context) -> Step:
        """Prepare the model and return what takes a step."""
        raise NotImplementedError(f"{type(self).__name__}.steps_of")


def indexed_batches(data: Split, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images [b, 3, s, s] and their positions in the split [b], without end."""
    positions = torch.arange(len(data), device=data.x.device)
    return Split(data.x, positions).batches(batch_size, generator)


def descent(optimizer: Optimizer, loss: Loss, set_rate: Callable[[int], None] = lambda _: None) -> Step:
    """Return the step of an optimizer down a loss, after which the rate is set."""

    def step(taken: int, x: Tensor, own: Tensor) -> None:
        descend(optimizer, loss(taken, x, own), taken + 1)
        set_rate(taken + 1)

    return step


def power_decay(optimizer: Optimizer, steps: int) -> Callable[[int], None]:
    """Return what sets the rate lr_i = lr_0 (1 + 10 i / steps)^-0.75 after i steps, called after every one of them."""
    schedule = LambdaLR(optimizer, lambda i: (1 + 10 * i / steps) ** -0.75)
    return lambda _: schedule.step()
