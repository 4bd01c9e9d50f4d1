"""Training on source and target together: statistics of their own, batches in pairs, one loop under the guard."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from ntbench.method import Context, Split, create_optimizer, create_schedule, descend, features

from ._guard import SourceGuard

Batch = tuple[Tensor, Tensor]
Loss = Callable[[Batch, Batch], Tensor]


@contextmanager
def passing(model: nn.Module) -> Iterator[None]:
    """Let batch norm in train mode take the statistics of each batch and remember none of them."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def both_features(model: nn.Module, xs: Tensor, xt: Tensor) -> tuple[Tensor, Tensor]:
    """Return the features of source images and of target images, each normalised by statistics of their own.

    Running statistics are the source's alone: an attacker has batches of the target alone, and whoever uses the release
    has the source. One pass over both lets a network tell the two apart by what they share a batch with.
    """
    fs = features(model, xs)
    with passing(model):
        return fs, features(model, xt)


def pairs(source: Split, target: Split, size: int, ctx: Context) -> Iterator[tuple[Batch, Batch]]:
    """Yield a batch of source and one of target without end, of the same size, which is at most `size`."""
    size = min(size, len(source), len(target))
    return zip(
        source.batches(size, ctx.generator("source")), target.batches(size, ctx.generator("target")), strict=True
    )


def descend_both(
    batches: Iterator[tuple[Batch, Batch]],
    loss: Loss,
    optimizer: Optimizer,
    steps: int,
    clip: float = math.inf,
    schedule: str = "constant",
) -> Iterator[int]:
    """Take steps down a loss of a source and a target batch, and yield their number after each of them.

    Modes are the caller's: nothing here switches a model to train or to eval mode.
    """
    set_rate = create_schedule(optimizer, schedule, steps)
    for step in range(1, steps + 1):
        descend(optimizer, loss(*next(batches)), step, clip)
        set_rate(step)
        yield step


def keep_source(
    guard: SourceGuard,
    optimizer: Optimizer,
    loss: Callable[[Tensor, Tensor], Tensor],
    source: Iterator[Batch],
    steps: int,
    repair: int,
) -> None:
    """Take steps down loss(x, y) on source, and `repair` more where the guard does not hold after them."""
    for count in (steps, repair):
        for step in range(1, count + 1):
            descend(optimizer, loss(*next(source)), step)
        if guard.holds():
            return


def repairing(
    guard: SourceGuard, model: nn.Module, ctx: Context, lr: float, batch_size: int, steps: int
) -> Callable[[], None]:
    """Return a look of the guard that trains on source alone, by Adam, where it finds too much of it lost."""
    assert ctx.source is not None
    optimizer = create_optimizer(model.parameters(), "adam", lr)
    source = ctx.source.batches(batch_size, ctx.generator("repair"))
    return partial(keep_source, guard, optimizer, lambda x, y: F.cross_entropy(model(x), y), source, 0, steps)


def watched(
    guard: SourceGuard,
    training: Iterator[int],
    steps: int,
    checks: int,
    look: Callable[[], object] | None = None,
) -> None:
    """Run a training of some steps and leave its last state within the guard's tolerance.

    The guard looks about `checks` times in even steps, the last of which ends with the training; `look` is how.
    """
    for step in training:
        if (steps - step) % max(1, steps // checks) == 0:
            (look or guard.holds)()
    guard.restore()
