"""One fit loop, one way to score, and a meter of what training costs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary

import timm.optim
import torch
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from ntbench.errors import unknown
from ntbench.tasks.data import Split
from ntbench.types import Training

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]]
Batches = Iterator[tuple[Tensor, Tensor]]
SCHEDULES = ("constant", "linear", "cosine", "step", "poly", "tanh")
SCORING_BATCH = 200
EXPLODED = 1e4
"""A loss in nats from which no training returns."""
# Torch has these as one kernel for all parameters on every device.
FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)


def check_optimizer(name: str) -> None:
    """Raise UserError where timm's factory knows no optimizer of this name."""
    if name not in timm.optim.list_optimizers():
        raise unknown("optimizer", name, timm.optim.list_optimizers())


def check_schedule(name: str) -> None:
    """Raise UserError where no schedule has this name."""
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)


def create_optimizer(
    parameters: Parameters, name: str, lr: float, weight_decay: float = 0.0, **options: Any
) -> Optimizer:
    """Build any optimizer of timm's factory over all given parameters, with names that mean what they say.

    `sgd` is plain, `momentum` has momentum 0.9 and `nesterov` is Nesterov's (timm calls the last one `sgd`);
    weight decay reaches biases and norms too. Raises UserError on unknown names.
    """
    check_optimizer(name)
    if name == "sgd":
        name, options = "momentum", {"momentum": 0.0} | options
    if timm.optim.get_optimizer_class(name, bind_defaults=False) in FUSED:
        options = {"fused": True} | options
    optimizer: Optimizer = timm.optim.create_optimizer_v2(
        list(parameters), opt=name, lr=lr, weight_decay=weight_decay, **options
    )
    return optimizer


def create_schedule(optimizer: Optimizer, name: str, steps: int, warmup: int = 0) -> Callable[[int], None]:
    """Return a function that sets the learning rates of a step; schedules are timm's, `linear` falls to 0.

    Warm-up rises from a 25th of every group's own rate. Raises UserError on unknown names.
    """
    check_schedule(name)
    if name == "constant" and not warmup:
        return lambda step: None
    kinds = {"linear": ("poly", {"decay_rate": 1.0}), "constant": ("step", {"decay_rate": 1.0})}
    kind, options = kinds.get(name, (name, {}))
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=kind,
        num_epochs=steps,
        decay_epochs=max(1, steps // 3),
        step_on_epochs=False,
        updates_per_epoch=1,
        **options,
    )
    rates = [group["lr"] for group in optimizer.param_groups]

    def set_rates(step: int) -> None:
        if step >= warmup:
            scheduler.step_update(step)
            return
        # timm's own warm-up starts all groups at one rate.
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 + 24 * step / warmup) / 25

    if warmup:
        set_rates(0)
    return set_rates


@dataclass(frozen=True, eq=False)
class Fit:
    """A training that is about to begin; `parameters` may be some of the model's, or groups with their own rates."""

    model: nn.Module
    data: Split
    training: Training
    generator: torch.Generator
    parameters: Parameters | None = None
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    after_step: Callable[[], None] = lambda: None

    @property
    def batch_size(self) -> int:
        """Return how many samples every batch has."""
        return min(self.training.batch_size, len(self.data))

    def begin(self) -> tuple[Optimizer, Callable[[int], None], Batches]:
        """Put the model in train mode and return its optimizer, what sets the rates after a step, and its batches."""
        trained = self.model.parameters() if self.parameters is None else self.parameters
        optimizer = create_optimizer(trained, self.training.optimizer, self.training.lr, self.training.weight_decay)
        set_rates = create_schedule(optimizer, self.training.schedule, self.training.steps, self.training.warmup)
        self.model.train()
        return optimizer, set_rates, self.data.batches(self.training.batch_size, self.generator)

    def run(self) -> Iterator[int]:
        """Train and yield the number of optimizer steps after each of them.

        Raises FloatingPointError with the step and the value where the loss is not finite or explodes.
        """
        optimizer, set_rates, batches = self.begin()
        for step in range(1, self.training.steps + 1):
            x, y = next(batches)
            descend(optimizer, self.loss(self.model(x), y), step, highest=EXPLODED)
            self.after_step()
            set_rates(step)
            yield step


def fit(
    model: nn.Module,
    data: Split,
    training: Training,
    generator: torch.Generator,
    parameters: Parameters | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
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


@torch.inference_mode()
def accuracy(model: nn.Module, data: Split) -> float:
    """Return the share of correct predictions in eval mode; every module's mode is put back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    batches = zip(data.x.split(SCORING_BATCH), data.y.split(SCORING_BATCH), strict=True)
    correct = sum(int((model(x).argmax(1) == y).sum()) for x, y in batches)
    for module, mode in modes:
        module.training = mode
    return correct / len(data)


class Meter:
    """Counts what runs inside its `with` block: optimizer steps, training samples, FLOPs and seconds.

    FLOPs are those of convolutions and linear layers, two per multiply-add, forward and, under autograd, backward.
    Samples are the images that the busiest layer has seen with gradients on; entering again goes on counting.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.steps = 0
        self.flops = 0
        self.seconds = 0.0
        self._seen: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
        self._handles: list[Any] = []
        self._since = 0.0

    @property
    def samples(self) -> int:
        """Return the number of training samples so far."""
        return max(self._seen.values(), default=0)

    def __enter__(self) -> Self:
        """Count from here on."""
        self._handles = [
            register_module_forward_hook(self._forward),
            register_optimizer_step_post_hook(self._step),
        ]
        self._since = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop counting; entering again goes on from the same numbers."""
        self.seconds += time.perf_counter() - self._since
        for handle in self._handles:
            handle.remove()

    def _step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.steps += 1

    def _forward(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, nn.Conv2d):
            per_output = module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            per_output = module.in_features
        else:
            return
        passes = 1
        if output.requires_grad:
            passes += int(module.weight.requires_grad) + int(inputs[0].requires_grad)
            self._seen[module] = self._seen.get(module, 0) + inputs[0].shape[0]
        self.flops += 2 * per_output * output.numel() * passes
