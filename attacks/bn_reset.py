"""Batch-norm and head reset: statistics of the target that stay, a head drawn anew, then everything trains.

No paper: a threat that follows from the training of SOPHON (arXiv 2404.12699), whose simulated attackers normalise by
the statistics of their batches and draw few heads. With weights frozen, mean and variance of every batch norm become
averages over batches of target images, and the head is drawn anew. All weights train then, while batch norms normalise
by these statistics and not by those of the batch: another landscape than the one that a defense was made for.

Deviations: none from a publication. With batches that normalise themselves this would be `finetune` with a new head.
"""

from dataclasses import replace

from torch import nn

from ntbench.method import Context, Field, Fit, Optimizer, register, reset_head

from ._adaptation import without_batch_norm
from ._normalisation import Still, reestimate
from ._tuning import Tuning


@register
class BatchNormReset(Tuning):
    """Fix batch norm to the target, draw a new head, and train."""

    name = "bn_reset"
    objectives = ("classification", "denoising")

    optimizer: Optimizer = "adam"
    lr: float = Field(default=3e-3, gt=0)

    def unfit(self, model: nn.Module) -> str:
        """Return why the attack cannot work on an architecture, or an empty string."""
        return without_batch_norm(model)

    def fit_of(self, model: nn.Module, ctx: Context) -> Fit:
        """Return the training of all weights under fixed statistics."""
        assert ctx.target is not None
        reestimate(model, ctx.target.whole(ctx.generator("shown"))[0])
        reset_head(model, ctx.target_classes, ctx.generator("head"))
        return replace(self.tuning(model, ctx), model=Still(model), outcome=lambda: model)
