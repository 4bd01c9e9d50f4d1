"""Immunisation: features that are well conditioned on source and badly on the target, so that linear probing stalls.

Paper: Zheng et al., ICML 2025, "Model Immunization from a Condition Number Perspective". With the Gram matrices
S1 and S2 (k by k, eigenvalues s) of source and target features in a batch, in double precision:
L = CE_S + well * (smax(S1)^2 / 2 - |S1|_F^2 / (2 k)) + ill / (|S2|_F^2 / (2 k) - smin(S2)^2 / 2).
The threat, and so the paper's attack, is plain gradient descent (SGD) on a new linear head while the encoder stands
still: its rate of convergence is set by the condition number of S2. digits to digits_m, best of four rates: .757
without a defense, .393 with it; Adam on the head, which rescales the directions, .713 and .562.

Deviations: with fewer samples in a batch than features, X^T X is singular and smin plays no part, so the eigenvalues
are those of the smaller of X^T X and X X^T (`gram="features"`: always X^T X, as in the public code, whose k is the
width of the image where ours is the number of features). Features are measured in units of the pretrained model's, so
that the two weights do not depend on the network (`units="absolute"`: plain features). All weights train with Adam, not
the last stage with SGD, with batch norm in eval mode and clipped gradients; labels are not smoothed; the
preconditioner of the paper's linear model is left out, as in its deep networks. Among the states after every round,
the last one within `tolerance` of the start on source validation data is released.

On denoisers the last layer is a convolution under squared error, which is the paper's linear regression on patches:
rows of the Gram matrices are patches of the last feature maps, and the denoising error takes the place of CE. As that
error is small, so must the weights be: digits to letters at 8 pixels, 60 steps, ln of the condition number on source
and target 4.7 and 4.8 before, 5.1 and 6.0 with well=1e-4 and ill=0.1 (source score .304 and .308), 5.6 and 7.4 with the
defaults (.231).
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from ntbench.method import Context, Defense, Field, Split, create_optimizer, features, head, register

from ._condition import Gram, gram, ill_conditioned, seen_rows, well_conditioned
from ._domains import Batch, both_features, descend_both, pairs, watched
from ._guard import TOLERANCE, SourceGuard

Loss = Callable[[Tensor, Tensor], Tensor]


@register
class Immunize(Defense):
    """Train with the two condition-number regularisers."""

    name = "immunize"
    version = 2
    paper = "https://arxiv.org/abs/2505.23760"
    objectives = ("classification", "denoising")
    needs_target = True

    well: float = Field(default=1e-3, ge=0)
    ill: float = Field(default=10.0, ge=0)
    gram: Gram = "smaller"
    units: Literal["pretrained", "absolute"] = "pretrained"
    lr: float = Field(default=1e-3, gt=0)
    clip: float = Field(default=5.0, gt=0)
    rounds: int = Field(default=10, ge=1)
    steps: int = Field(default=25, ge=1)
    tolerance: float = Field(default=TOLERANCE, ge=0, le=1)
    batch_size: int = Field(default=64, ge=1)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the last model whose source accuracy on validation data is within tolerance of the start."""
        assert ctx.source is not None and ctx.target is not None
        guard = SourceGuard(model, ctx, self.tolerance)
        batches = pairs(ctx.source, ctx.target, self.batch_size, ctx)
        optimizer = create_optimizer(model.parameters(), "adam", self.lr)
        model.eval()
        with torch.no_grad():
            units = [self._unit(self._first(model, data, ctx)) for data in (ctx.source, ctx.target)]
        steps = self.rounds * self.steps
        loss = partial(self._loss, model, ctx.objective.loss, units)
        training = descend_both(batches, loss, optimizer, steps, self.clip)
        watched(guard, training, steps, self.rounds)
        return model

    def _loss(self, model: nn.Module, loss: Loss, units: list[Tensor], source: Batch, target: Batch) -> Tensor:
        fs, ft = both_features(model, source[0], target[0])
        rows = [seen_rows(head(model), x) / unit for x, unit in zip((fs, ft), units, strict=True)]
        s1, s2 = (gram(x, self.gram) for x in rows)
        penalty = self.well * well_conditioned(s1) + self.ill * ill_conditioned(s2)
        return loss(head(model)(fs), source[1]) + penalty

    def _first(self, model: nn.Module, data: Split, ctx: Context) -> Tensor:
        """Return the rows of a first batch."""
        size = self.batch_size
        shown, _ = data.objective.batch(data.x[:size], data.y[:size], ctx.generator("units"))
        return seen_rows(head(model), features(model, shown))

    def _unit(self, x: Tensor) -> Tensor:
        """Return what to divide features [n, d] by, so that the mean eigenvalue of their Gram matrix is 1."""
        if self.units == "absolute":
            return torch.ones((), device=x.device)
        return (x.detach().square().sum() / min(x.shape)).sqrt()
