"""Redrawing: the first layers stay as released, all deeper ones start anew, and everything trains.

No paper: a threat to defenses that plant a bad landscape in deep layers, where what the attacker wants from a release,
its first features, lies in the others. `kept` counts blocks from the input as layer-wise rates do; the head is always
drawn anew. Running statistics of batch norm are estimated anew on target images, since those of the first layers may be
planted too.

Deviations: none from a publication; with all blocks kept this would be `finetune` with a new head.
"""

import torch
from torch import nn

from ntbench.method import Context, Field, Fit, Optimizer, head, register, reset_head

from ._layers import depths
from ._normalisation import reestimate
from ._tuning import Tuning


@register
class Redraw(Tuning):
    """Draw all layers but the first anew, and train."""

    name = "redraw"

    optimizer: Optimizer = "adam"
    lr: float = Field(default=3e-3, gt=0)
    kept: int = Field(default=1, ge=1)

    def unfit(self, model: nn.Module) -> str:
        """Return why the attack cannot work on an architecture, or an empty string."""
        below = len(set(depths(model).values())) - 1
        return "" if self.kept < below else f"{type(model).__name__} has {below} layers below its head; keep fewer"

    def fit_of(self, model: nn.Module, ctx: Context) -> Fit:
        """Return the training of a model of which only the first layers are the released ones."""
        assert ctx.target is not None
        redraw(model, ctx.fresh(head(model).out_features), self.kept)
        reset_head(model, ctx.target_classes, ctx.generator("head"))
        reestimate(model, ctx.target.x)
        return self.tuning(model, ctx)


@torch.no_grad()
def redraw(model: nn.Module, fresh: nn.Module, kept: int) -> None:
    """Give all parameters beyond the first layers the values of a fresh model."""
    depth = depths(model)
    layers = sorted(set(depth.values()))[:kept]
    for name, parameter in model.named_parameters():
        if depth[name] not in layers:
            parameter.copy_(fresh.get_parameter(name))
