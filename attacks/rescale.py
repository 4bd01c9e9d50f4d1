"""Rescaling: the released function is written with weights of usual size, and training goes on from there.

No paper: a threat to defenses that hide in the scale of weights, which decides what a step of training does. First the
channels of layers with only ReLU and pooling between them are balanced as in cross-layer equalisation (Nagel et al.,
ICCV 2019, arXiv 1906.04721), s = sqrt(q / r), with L2 norms relative to those of a fresh network in place of ranges.
Then every filter before a batch norm gets the norm that it has when fresh, and the batch norm makes up for it. Logits
in eval mode stay as they are, up to rounding.

Deviations: none from a publication. Every pair is balanced once. The head, linear layers, other norms, and layers with
a sum, a grouped convolution or a bent activation (SiLU, GELU, ReLU6) behind them are not balanced.
"""

import torch
from torch import Tensor, nn

from ntbench.method import Context, Field, Fit, Optimizer, head, register

from ._rescaling import balance, image_side, magnitude, renormalise, wiring
from ._tuning import Tuning


@register
class Rescale(Tuning):
    """Bring weights to the size of fresh ones without changing the function, and train."""

    name = "rescale"

    optimizer: Optimizer = "adam"
    lr: float = Field(default=3e-3, gt=0)

    def unfit(self, model: nn.Module) -> str:
        """Return why the attack cannot work on an architecture, or an empty string."""
        side = image_side(model)
        found = wiring(model, torch.zeros(1, 3, side, side))
        return "" if found.normed or found.pairs else f"{type(model).__name__} has no convolution that can be rescaled"

    def fit_of(self, model: nn.Module, ctx: Context) -> Fit:
        """Return the training of the rescaled model; ValueError where no layer can be rescaled."""
        assert ctx.target is not None
        rescale(model, ctx.fresh(head(model).out_features), ctx.target.x[:1])
        return self.tuning(model, ctx)


def rescale(model: nn.Module, fresh: nn.Module, x: Tensor) -> None:
    """Bring convolutions and batch norms to the sizes that they have in a fresh model; an image shows how they follow.

    Raises ValueError where there are none.
    """
    found = wiring(fresh, x)
    if not found.normed and not found.pairs:
        raise ValueError(f"{type(model).__name__} has no convolution that can be rescaled; use another attack")
    for first, second in found.pairs:
        goals = magnitude(fresh.get_submodule(first)), magnitude(fresh.get_submodule(second), 1)
        balance(model.get_submodule(first), model.get_submodule(second), goals)
    for conv, norm in found.normed:
        renormalise(model.get_submodule(conv), model.get_submodule(norm), magnitude(fresh.get_submodule(conv)))
