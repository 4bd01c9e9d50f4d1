"""Mask regrowth: the released zeros get weights again, dead norms come back to life, and everything trains.

No paper: a threat to NTP (arXiv 2410.08015), whose evaluation keeps the mask. Every zero among weights with two axes or
more becomes nothing (`zeros`: it may grow), a draw from N(0, 2 / fan-in) (`kaiming`) or what a freshly initialised
network has there (`fresh`), times `scale`; a batch-norm weight of zero becomes one, since nothing passes its channel
otherwise. Running statistics are estimated anew on target images, then all parameters train, those with zeros among
them at `boost` times the rate. Weights that survived are as released until then.

Deviations: none from a publication. `mask="keep"` of finetune is the attacker of the paper.
"""

from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from ntbench.method import Context, Defense, Field, Fit, Optimizer, head, register

from ._normalisation import reestimate
from ._tuning import Tuning, renew_misfit


@register
class Regrow(Tuning):
    """Fill the zeros of a mask, revive norms, and train."""

    name = "regrow"
    objectives = ("classification", "denoising")

    optimizer: Optimizer = "adam"
    lr: float = Field(default=3e-3, gt=0)
    init: Literal["zeros", "kaiming", "fresh"] = "kaiming"
    scale: float = Field(default=0.1, gt=0)
    boost: float = Field(default=1.0, ge=1)

    def refuses(self, defense: Defense, source_classes: int, target_classes: int) -> str:
        """Return why the attack cannot face a defense on a task, or an empty string where it can."""
        if not defense.masked:
            return f"{defense.name} releases no zeros to regrow"
        return super().refuses(defense, source_classes, target_classes)

    def fit_of(self, model: nn.Module, ctx: Context) -> Fit:
        """Return the training of what has regrown."""
        assert ctx.target is not None
        renew_misfit(model, ctx)
        zeros = {name: p == 0 for name, p in model.named_parameters() if p.ndim > 1}
        self._fill(model, zeros, ctx)
        revive(model)
        reestimate(model, ctx.target.whole(ctx.generator("shown"))[0])
        growing = [model.get_parameter(name) for name, zero in zeros.items() if zero.any()]
        return self.tuning(model, ctx, factors=dict.fromkeys(growing, self.boost))

    @torch.no_grad()
    def _fill(self, model: nn.Module, zeros: dict[str, Tensor], ctx: Context) -> None:
        generator, fresh = ctx.generator("regrow"), ctx.fresh(head(model).out_features)
        for name, zero in zeros.items():
            weight = model.get_parameter(name)
            if self.init == "kaiming":
                drawn = kaiming(weight, generator)
            else:
                drawn = fresh.get_parameter(name) if self.init == "fresh" else torch.zeros_like(weight)
            weight.copy_(torch.where(zero, self.scale * drawn, weight))


def kaiming(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Draw weights of the same shape from N(0, 2 / fan-in)."""
    return torch.randn(weight.shape, generator=generator).to(weight) * sqrt(2 / weight[0].numel())


@torch.no_grad()
def revive(model: nn.Module) -> None:
    """Set batch-norm weights of zero to one."""
    for layer in model.modules():
        if isinstance(layer, BatchNorm) and layer.affine:
            layer.weight.masked_fill_(layer.weight == 0, 1.0)
