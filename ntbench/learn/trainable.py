"""Whether a release can be trained at all: one pass in train mode leaves finite numbers."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from ntbench.learn.models import check_finite
from ntbench.tasks.data import Split
from ntbench.tasks.pixels import floats

BATCH = 32


def check_trainable(model: nn.Module, data: Split) -> None:
    """Raise ValueError where a pass of some samples in train mode, forward and backward, ends in no finite numbers.

    Weights or statistics near the largest number that there is leave predictions as they are and end whoever trains
    on: attacks would count as diverged, which says nothing about what is left in a release. The model stays as it is.
    """
    probe, few = deepcopy(model).train(), data.subset(torch.arange(min(BATCH, len(data))))
    batch = few.to(next(probe.parameters()).device)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x, target = data.objective.batch(floats(batch.held), batch.y, torch.Generator().manual_seed(0))
        loss = data.objective.loss(probe(x), target)
    loss.backward()
    try:
        check_finite(probe)
    except FloatingPointError as error:
        raise ValueError(_told(str(error))) from None
    sound = [loss, *(p.grad for p in probe.parameters() if p.grad is not None)]
    if not all(torch.isfinite(part).all() for part in sound):
        raise ValueError(_told("loss or gradients are not finite"))


def _told(what: str) -> str:
    return f"the release cannot be trained on: {what} after one pass; release numbers that do not overflow"
