"""The control row for NTP: plain magnitude pruning to NTP's sparsity and retraining on source, without a target loss.

Paper: Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks". The weights of smallest
|w| over all convolutions and linear layers of the encoder are set to zero at once; training then goes on inside the
mask, for as many source steps as NTP takes in all. What NTP gains over this row is what its target losses do; the rest
is the capacity that sparsity takes.

Deviations: one global threshold in place of one per layer, and one pruning round in place of several. A model that ends
more than `tolerance` below its source accuracy at the start, on validation data, is not released.
"""

from torch import nn

from ntbench.method import Context, Defense, Field, register

from ._guard import SourceGuard
from ._pruning import encoder_weights, largest, tune_masked


@register
class Magnitude(Defense):
    """Prune the smallest weights, then retrain on source."""

    name = "magnitude"
    paper = "https://arxiv.org/abs/1506.02626"
    masked = True

    sparsity: float = Field(default=0.98, gt=0, lt=1)
    tune_steps: int = Field(default=420, ge=1)
    tune_lr: float = Field(default=5e-3, gt=0)
    batch_size: int = Field(default=32, ge=1)
    tolerance: float = Field(default=0.05, ge=0, le=1)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the pruned model."""
        guard = SourceGuard(model, ctx, self.tolerance)
        weights = encoder_weights(model)
        masks = largest(weights, self.sparsity)
        tune_masked(model, weights, masks, ctx, self.tune_steps, self.tune_lr, self.batch_size)
        guard.insist()
        return model
