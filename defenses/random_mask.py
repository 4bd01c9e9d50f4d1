"""The control row that asks what the choice of a mask is worth: a random mask at NTP's sparsity, retrained on source.

No paper: this is `magnitude` with the magnitudes replaced by uniform random numbers. Exactly the same share of the
weights of all convolutions and linear layers of the encoder is set to zero at once; training on source then goes on
inside the mask. A row that beats `magnitude` but not this one owes its effect to lost capacity alone.

Deviations: none, except that the mask is random over all layers together and not a fixed share of each, and that a
model that ends more than `tolerance` below its source accuracy at the start, on validation data, is not released.
"""

import torch
from torch import nn

from ntbench.method import Context, Defense, Field, register

from ._guard import SourceGuard
from ._pruning import encoder_weights, largest, tune_masked


@register
class RandomMask(Defense):
    """Prune weights at random, then retrain on source."""

    name = "random_mask"
    masked = True

    sparsity: float = Field(default=0.98, gt=0, lt=1)
    tune_steps: int = Field(default=200, ge=1)
    tune_lr: float = Field(default=1e-2, gt=0)
    batch_size: int = Field(default=32, ge=1)
    tolerance: float = Field(default=0.1, ge=0, le=1)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the pruned model."""
        guard = SourceGuard(model, ctx, self.tolerance)
        weights, generator = encoder_weights(model), ctx.generator("mask")
        lots = [torch.rand(w.shape, generator=generator).to(w.device) for w in weights]
        masks = largest(lots, self.sparsity)
        tune_masked(model, weights, masks, ctx, self.tune_steps, self.tune_lr, self.batch_size)
        guard.insist()
        return model
