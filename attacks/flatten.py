"""Spectral flattening: the singular values of every weight move towards their mean, and everything trains.

No paper: a threat to defenses that make directions of weight space steep or dead, so that gradients reach few features.
Every weight with two axes or more, as a matrix [out, rest] = U S V, becomes U ((1 - share) S + share mean(S)) V. What a
layer responds to stays, how unequally it does so goes. Running statistics are estimated anew on target images.

Deviations: none from a publication.
"""

import torch
from torch import nn

from ntbench.method import Context, Field, Fit, Optimizer, register

from ._normalisation import reestimate
from ._tuning import Tuning


@register
class Flatten(Tuning):
    """Even out the singular values of weights, and train."""

    name = "flatten"

    optimizer: Optimizer = "muon"
    lr: float = Field(default=1e-2, gt=0)
    share: float = Field(default=0.5, ge=0, le=1)

    def fit_of(self, model: nn.Module, ctx: Context) -> Fit:
        """Return the training of the flattened model."""
        assert ctx.target is not None
        flatten(model, self.share)
        reestimate(model, ctx.target.x)
        return self.tuning(model, ctx)


@torch.no_grad()
def flatten(model: nn.Module, share: float) -> None:
    """Move the singular values of every weight by a share of the way to their mean."""
    for weight in (p for p in model.parameters() if p.ndim > 1):
        left, values, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
        weight.copy_((left * values.lerp(values.mean(), share) @ right).view(weight.shape))
