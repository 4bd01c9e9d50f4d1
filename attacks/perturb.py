"""Shrink and perturb: released parameters shrink towards zero and take some of a random initialisation, then all train.

Paper: Ash & Adams, NeurIPS 2020, "On Warm-Starting Neural Network Training": theta <- shrink * theta + noise, before
training goes on. It pulls a model out of a region from which it does not learn, and keeps a part of what it knows.

Deviations: the noise is `noise` times the parameters of a freshly initialised network of the same architecture, norms
included, and not N(0, sigma^2), so that every layer gets noise of the size of its weights. Running statistics of batch
norm are estimated anew on target images, since those released belong to other weights. It is done once.
"""

from torch import nn

from ntbench.method import Context, Field, Fit, Optimizer, head, register

from ._blending import blend
from ._tuning import Tuning


@register
class Perturb(Tuning):
    """Shrink the parameters, add fresh ones, and train."""

    name = "perturb"
    paper = "https://arxiv.org/abs/1910.08475"

    optimizer: Optimizer = "adam"
    lr: float = Field(default=3e-3, gt=0)
    shrink: float = Field(default=0.4, ge=0, le=1)
    noise: float = Field(default=0.1, ge=0)

    def fit_of(self, model: nn.Module, ctx: Context) -> Fit:
        """Return the training of the sum."""
        assert ctx.target is not None
        blend(model, ctx.fresh(head(model).out_features), self.shrink, self.noise, ctx.target.x)
        return self.tuning(model, ctx)
