"""Batch-norm and head reset: statistics of the target, a head drawn anew, then training, the head alone first or not.

No paper: a threat that follows from the training of SOPHON (arXiv 2404.12699), whose simulated attackers leave the
running statistics as they are and draw few heads. With weights frozen, mean and variance of every batch norm become
averages over batches of target images; the head is drawn anew; then training goes on for the rest of the steps, of
which a share of `probe` comes first and touches the head alone (LP-FT, Kumar et al., ICLR 2022).

Deviations: none from a publication. Both phases take the same optimizer and rate, each on a schedule of its own.
"""

from collections.abc import Iterator

from torch import nn

from ntbench.method import Context, Field, Optimizer, head, register, reset_head

from ._normalisation import reestimate
from ._phases import phases
from ._tuning import Tuning


@register
class BatchNormReset(Tuning):
    """Re-estimate batch norm on the target, draw a new head, and train."""

    name = "bn_reset"

    optimizer: Optimizer = "adam"
    lr: float = Field(default=3e-3, gt=0)
    probe: float = Field(default=0.0, ge=0, lt=1)

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        """Yield the model after every step; ValueError without batch norm."""
        assert ctx.target is not None
        if not reestimate(model, ctx.target.x):
            raise ValueError(f"{type(model).__name__} has no batch norm to reset; finetune draws a head anew")
        reset_head(model, ctx.target_classes, ctx.generator("head"))
        probing, training = phases(ctx, self.probe)
        if probing.budget.steps:
            yield from self.tune(model, probing, parameters=list(head(model).parameters()))
        yield from self.tune(model, training)
