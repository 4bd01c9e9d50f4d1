"""The control row that asks what the choice of a mask is worth: a random mask at NTP's sparsity, trained as long.

No paper: this is `magnitude`, step for step, with a uniform random number drawn once for every weight in the place of
its magnitude. A row that beats `magnitude` but not this one owes its effect to lost capacity alone.

Deviations: none, except that the mask is random over all layers together and not a fixed share of each, and that the
last mask of the schedule that keeps the source within `tolerance` on validation data is released where the last of all
does not.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ntbench.method import Context, register

from ._gradual import GradualPruning, Scores


@register
class RandomMask(GradualPruning):
    """Prune weights at random, step by step, while training on source."""

    name = "random_mask"
    version = 2
    masked = True
    quick = {"iterations": 5, "steps": 4, "tune_steps": 20, "sparsity": 0.5, "tolerance": 0.2}

    def _scores(self, weights: Sequence[Tensor], ctx: Context) -> Scores:
        generator = ctx.generator("mask")
        lots = [torch.rand(w.shape, generator=generator).to(w.device) for w in weights]
        return lambda: lots
