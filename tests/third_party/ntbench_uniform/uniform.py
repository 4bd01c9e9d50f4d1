"""Uniform: training on source that makes predictions on unlabelled target images uniform.

No paper: the loss is CE_S + strength * CE(p_T, uniform), a stand-in for a defense that somebody brings along.
"""

from torch import nn
from torch.nn import functional as F

from ntbench.method import Context, Defense, Field, create_optimizer, descend, register


@register
class Uniform(Defense):
    """Flatten what the model says about the target."""

    name = "uniform"
    needs_target = True
    quick = {"steps": 20}

    strength: float = Field(default=0.3, ge=0)
    steps: int = Field(default=30, ge=1)
    lr: float = Field(default=1e-3, gt=0)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the model after `steps` steps down the loss."""
        assert ctx.source is not None and ctx.target is not None
        source, target = (
            ctx.source.batches(32, ctx.generator("source")),
            ctx.target.batches(32, ctx.generator("target")),
        )
        optimizer = create_optimizer(model.parameters(), "adam", self.lr)
        model.train()
        for step in range(1, self.steps + 1):
            (xs, ys), (xt, _) = next(source), next(target)
            flat = -model(xt).log_softmax(1).mean()
            descend(optimizer, F.cross_entropy(model(xs), ys) + self.strength * flat, step)
        return model
