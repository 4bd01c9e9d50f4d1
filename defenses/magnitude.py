"""The control row for NTP: plain magnitude pruning to NTP's sparsity and retraining on source, without a target loss.

Paper: Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks". The weights of smallest
|w| over all convolutions and linear layers of the encoder are set to zero at once; training then goes on inside the
mask, for as many source steps as NTP takes in all. What NTP gains over this row is what its target losses do; the rest
is the capacity that sparsity takes.

Deviations: one global threshold in place of one per layer, and one pruning round in place of several.
"""

from torch import nn

from ntbench.method import Context, Defense, Field, register

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

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the pruned model."""
        masks = largest(encoder_weights(model), self.sparsity)
        tune_masked(model, masks, ctx, self.tune_steps, self.tune_lr, self.batch_size)
        return model
