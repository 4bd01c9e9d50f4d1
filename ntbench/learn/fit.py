"""One fit loop: plain supervised training, up to each of some budgets."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from ntbench.learn.meter import Meter
from ntbench.learn.optim import Parameters, create_optimizer, create_schedule, ends_anywhere
from ntbench.tasks.data import Split
from ntbench.types import Training

Batches = Iterator[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]
Rates = Callable[[int], None]
"""Sets the rates after a step."""
EXPLODED = 1e4
"""A loss in nats from which no training returns."""
COOLDOWN = 0.2
"""The share of a budget over which the rate of the schedule `cooldown` falls to 0."""


class Course(ABC):
    """A training that runs to its end, or climbs through budgets; what a step and a state are, its kinds say."""

    training: Training

    @abstractmethod
    def begin(self) -> tuple[Optimizer, Rates, Iterator[Any]]:
        """Get ready to train and return the optimizer, what sets the rates after a step, and the batches."""

    @abstractmethod
    def _advance(self, optimizer: Optimizer, batches: Iterator[Any], step: int) -> None:
        """Take a step."""

    @abstractmethod
    def _aside(self, end: int) -> Iterator[Any]:
        """Return the batches of the branch to a budget's end."""

    @abstractmethod
    def _held(self, optimizer: Optimizer) -> Any:
        """Return a copy of all that training changes."""

    @abstractmethod
    def _back(self, held: Any, optimizer: Optimizer) -> None:
        """Go back to where a copy was taken."""

    def run(self) -> Iterator[int]:
        """Train and yield the number of optimizer steps after each of them.

        Raises FloatingPointError with the step and the value where the loss is not finite or explodes.
        """
        optimizer, set_rates, batches = self.begin()
        steps = self.training.steps
        fork = self._fork(steps)
        yield from self._steps(optimizer, batches, range(1, fork + 1), set_rates)
        yield from self._cool(optimizer, fork, steps)

    def climb(self, ends: Sequence[int], meter: Meter) -> Iterator[int]:
        """Train up to each of some rising budgets and yield them; the model is then what a run of that budget leaves.

        The schedule `cooldown` keeps its rate until the last fifth before a budget, falls to 0 on a branch, and goes on
        from the fork; the meter goes back with it. `constant` and steps by epoch need no branch. Any other schedule is
        tied to the end of one budget, so that the last one alone is yielded. Raises FloatingPointError as `run` does.
        """
        optimizer, set_rates, batches = self.begin()
        cooling = self.training.schedule == "cooldown"
        done = 0
        for end in ends if cooling or ends_anywhere(self.training.schedule) else ends[-1:]:
            fork = self._fork(end)
            for _ in self._steps(optimizer, batches, range(done + 1, fork + 1), set_rates):
                pass
            done = fork
            if not cooling:
                yield end
                continue
            held = None if end == ends[-1] else self._held(optimizer)
            mark = meter.cost
            # The trunk must not feel what a branch draws, for dropout say.
            with torch.random.fork_rng():
                for _ in self._cool(optimizer, fork, end):
                    pass
            yield end
            if held is not None:
                self._back(held, optimizer)
                meter.rewind(mark)

    def _fork(self, end: int) -> int:
        """Return the step after which the rate falls to 0 before a budget ends; others see to it themselves."""
        return end - max(1, round(COOLDOWN * end)) if self.training.schedule == "cooldown" else end

    def _cool(self, optimizer: Optimizer, fork: int, end: int) -> Iterator[int]:
        """Train from the fork to the end of a budget while all rates fall linearly to 0, on batches of its own."""
        rates = [group["lr"] for group in optimizer.param_groups]

        def fall(step: int) -> None:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (end - step) / (end + 1 - fork)

        fall(fork)
        yield from self._steps(optimizer, self._aside(end), range(fork + 1, end + 1), fall)

    def _steps(
        self, optimizer: Optimizer, batches: Iterator[Any], steps: Sequence[int], set_rates: Rates
    ) -> Iterator[int]:
        for step in steps:
            self._advance(optimizer, batches, step)
            set_rates(step)
            yield step


@dataclass(frozen=True, eq=False)
class Fit(Course):
    """A training that is about to begin; `parameters` may be some of the model's, or groups with their own rates.

    `after_step` must not remember anything from one step to the next, since training may go back to an earlier step.
    """

    model: nn.Module
    data: Split
    training: Training
    generator: torch.Generator
    parameters: Parameters | None = None
    loss: Loss | None = None
    """Takes outputs and targets; None for the loss of the objective that the data have."""
    after_step: Callable[[], None] = lambda: None
    outcome: Callable[[], nn.Module] | None = None
    """Gives what is handed over at the end of a budget, where that is not the model that trains."""
    told: str = ""
    """What a search says that it chose; where it says so, its own cost is no part of the run."""

    @property
    def adapted(self) -> nn.Module:
        """Return what is handed over now."""
        return self.outcome() if self.outcome else self.model

    @property
    def batch_size(self) -> int:
        """Return how many samples every batch has."""
        return min(self.training.batch_size, len(self.data))

    def begin(self) -> tuple[Optimizer, Rates, Batches]:
        """Put the model in train mode and return its optimizer, what sets the rates after a step, and its batches."""
        trained = self.model.parameters() if self.parameters is None else self.parameters
        optimizer = create_optimizer(trained, self.training.optimizer, self.training.lr, self.training.weight_decay)
        set_rates = self.schedule(optimizer)
        self.model.train()
        return optimizer, set_rates, self.data.batches(self.training.batch_size, self.generator)

    def schedule(self, optimizer: Optimizer) -> Rates:
        """Return what sets an optimizer's rates after a step."""
        plan = self.training
        epoch = math.ceil(len(self.data) / self.batch_size)
        return create_schedule(optimizer, plan.schedule, plan.steps, plan.warmup, epoch)

    def aside(self, end: int) -> torch.Generator:
        """Return what draws the batches of the branch to a budget's end."""
        return torch.Generator().manual_seed((self.generator.initial_seed() + end) % 2**63)

    def _aside(self, end: int) -> Batches:
        return self.data.batches(self.training.batch_size, self.aside(end))

    def _held(self, optimizer: Optimizer) -> Any:
        return copy.deepcopy((self.model.state_dict(), optimizer.state_dict()))

    def _back(self, held: Any, optimizer: Optimizer) -> None:
        self.model.load_state_dict(held[0])
        optimizer.load_state_dict(held[1])
        self.model.train()

    def _advance(self, optimizer: Optimizer, batches: Batches, step: int) -> None:
        x, y = next(batches)
        loss = self.loss or self.data.objective.loss
        descend(optimizer, loss(self.model(x), y), step, highest=EXPLODED)
        self.after_step()


def fit(
    model: nn.Module,
    data: Split,
    training: Training,
    generator: torch.Generator,
    parameters: Parameters | None = None,
    loss: Loss | None = None,
    after_step: Callable[[], None] = lambda: None,
) -> Iterator[int]:
    """Run a `Fit`: train in train mode and yield the number of optimizer steps after each of them.

    Raises FloatingPointError with the step and the value where the loss is not finite or explodes.
    """
    return Fit(model, data, training, generator, parameters, loss, after_step).run()


def check_loss(value: float, step: int, highest: float) -> None:
    """Raise FloatingPointError with the step and the value where a loss is not finite or above the highest."""
    if not math.isfinite(value) or value > highest:
        raise FloatingPointError(f"the loss is {value} at step {step}")


def descend(optimizer: Optimizer, loss: Tensor, step: int, clip: float = math.inf, highest: float = math.inf) -> None:
    """Take one optimizer step down a loss, with the norm of the gradient clipped.

    Raises FloatingPointError with the step and the value where the loss is not finite or above the highest.
    """
    check_loss(loss.item(), step, highest)
    optimizer.zero_grad()
    loss.backward()
    if clip < math.inf:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip)
    optimizer.step()
