"""What training costs: optimizer steps, images shown, FLOPs and seconds, whatever code does it."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.flop_counter import FlopCounterMode

Signature = tuple[object, ...]


@dataclass(frozen=True)
class Cost:
    """What has been spent so far; seconds are wall time."""

    steps: int = 0
    samples: int = 0
    flops: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """Return both together."""
        return Cost(
            self.steps + other.steps,
            self.samples + other.samples,
            self.flops + other.flops,
            self.seconds + other.seconds,
        )


class Meter:
    """Counts what runs inside its `with` block; entering again goes on counting.

    Samples are images that a model was shown, with gradients or without: inputs of the given shape of one sample,
    counted at the outermost module alone. FLOPs are those that torch counts for the same call, two per multiply-add,
    forward and, under autograd, backward; a call of one shape is counted once, on a copy without memory.
    """

    def __init__(self, sample: tuple[int, ...] = ()) -> None:
        """Start at zero; `sample` is the shape of one image, without which no samples are counted."""
        self._sample = tuple(sample)
        self._spent = Cost()
        self._lost = 0
        self._depth = 0
        self._handles: list[Any] = []
        self._since: float | None = None
        self._known: WeakKeyDictionary[nn.Module, dict[Signature, int]] = WeakKeyDictionary()

    @property
    def cost(self) -> Cost:
        """Return what the run that is under way has taken."""
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return Cost(self._spent.steps, self._spent.samples, self._spent.flops, self._spent.seconds + running)

    @property
    def paid(self) -> int:
        """Return all steps that were taken, those included that `rewind` took back."""
        return self._spent.steps + self._lost

    def rewind(self, mark: Cost) -> None:
        """Go back to an earlier cost, since training goes on from where the run stood then."""
        self._lost += self._spent.steps - mark.steps
        self._spent = mark
        self._since = None if self._since is None else time.perf_counter()

    def begin_run(self) -> None:
        """Start a run at no cost; what was spent before stays paid."""
        self.rewind(Cost())

    def add(self, samples: int = 0, flops: int = 0, steps: int = 0, seconds: float = 0.0) -> None:
        """Charge work that was done elsewhere."""
        self._spent += Cost(steps, samples, flops, seconds)

    def __enter__(self) -> Self:
        """Count from here on."""
        self._depth = 0
        self._handles = [
            register_module_forward_pre_hook(self._before),
            register_module_forward_hook(self._after, always_call=True),
            register_optimizer_step_post_hook(self._step),
        ]
        self._since = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop counting; entering again goes on from the same numbers."""
        self._spent, self._since = self.cost, None
        for handle in self._handles:
            handle.remove()

    def _step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.add(steps=1)

    def _before(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._depth += 1
        if self._depth > 1 or not inputs or not isinstance(inputs[0], Tensor) or inputs[0].is_meta:
            return
        x = inputs[0]
        self.add(len(x) if x.shape[1:] == self._sample else 0, self._flops(module, inputs))

    def _after(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._depth -= 1

    def _flops(self, module: nn.Module, inputs: tuple[Any, ...]) -> int:
        known = self._known.setdefault(module, {})
        learning = torch.is_grad_enabled() and tuple(p.requires_grad for p in module.parameters())
        facts = [(x.shape, x.requires_grad) if isinstance(x, Tensor) else () for x in inputs]
        signature = (*facts, module.training, learning)
        if signature not in known:
            known[signature] = counted(module, inputs)
        return known[signature]


def counted(module: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Return the FLOPs of one call of a module and, under autograd, of its backward pass; nothing of it changes.

    A module that cannot run without memory counts as nothing.
    """
    try:
        twin = copy.deepcopy(module).to("meta")
        on_meta = [_on_meta(x) for x in inputs]
        with FlopCounterMode(display=False) as counter:
            output = twin(*on_meta)
            if isinstance(output, Tensor) and output.requires_grad:
                output.sum().backward()
    except (RuntimeError, NotImplementedError, TypeError):
        return 0
    return int(counter.get_total_flops())


def _on_meta(x: Any) -> Any:
    return torch.empty_like(x, device="meta").requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x
