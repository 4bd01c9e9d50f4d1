"""The control row for NTP: plain magnitude pruning to NTP's sparsity on source, on NTP's schedule, without its losses.

Paper: Zhu and Gupta 2017, "To Prune, or Not to Prune" (https://arxiv.org/abs/1710.01878), after Han et al. 2015. While
the model trains on source, the weights of smallest |w| over all convolutions and linear layers of the encoder are set
to zero after every `steps` steps, ever more of them on a cubic schedule; training then goes on inside the last mask.
What NTP gains over this row is what its target losses do; the rest is the capacity that sparsity takes.

Deviations: one global threshold in place of one per layer. A model that ends more than `tolerance` below its source
accuracy at the start, on validation data, is not released. Pruning at once (Han et al.) removed whole layers of a
ResNet-18 at a sparsity of 0.95, from which no training returned.
"""

import torch
from torch import nn

from ntbench.method import Context, Defense, Field, Training, fit, register

from ._guard import SourceGuard
from ._pruning import clear, cubic_sparsity, encoder_weights, largest, tune_masked


@register
class Magnitude(Defense):
    """Prune the smallest weights step by step while training on source."""

    name = "magnitude"
    paper = "https://arxiv.org/abs/1710.01878"
    masked = True

    sparsity: float = Field(default=0.98, gt=0, lt=1)
    ramp: float = Field(default=0.6, gt=0, le=1)
    iterations: int = Field(default=20, ge=1)
    steps: int = Field(default=15, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    tune_steps: int = Field(default=120, ge=1)
    tune_lr: float = Field(default=5e-3, gt=0)
    batch_size: int = Field(default=32, ge=1)
    tolerance: float = Field(default=0.05, ge=0, le=1)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the pruned model."""
        assert ctx.source is not None
        guard = SourceGuard(model, ctx, self.tolerance)
        weights = encoder_weights(model)
        masks = [torch.ones_like(w, dtype=torch.bool) for w in weights]
        reached = max(1, round(self.ramp * self.iterations))
        training = Training(
            optimizer="adam", lr=self.lr, steps=self.iterations * self.steps, batch_size=self.batch_size
        )
        batches = ctx.generator("prune")
        for step in fit(model, ctx.source, training, batches, after_step=lambda: clear(weights, masks)):
            if step % self.steps == 0:
                masks[:] = largest(weights, cubic_sparsity(self.sparsity, step // self.steps, reached))
        tune_masked(model, weights, masks, ctx, self.tune_steps, self.tune_lr, self.batch_size)
        guard.insist()
        return model
