"""FixMatch: fine-tuning on labelled samples and, of images without labels, on what the model is sure of.

Paper: Sohn et al., NeurIPS 2020, "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence",
equations 3 and 4: L = CE(weak view, label) + `weight` mean(1[max q >= `threshold`] CE(strong view, arg max q)), where q
is what the model itself says of the weak view of the same image, without a gradient. The images without labels are
those that attackers' samples are drawn from, `ratio` times a batch in every step; their own samples are among them.

Deviations: no moving average of the weights, and steps of 3 batches of 32 where the paper takes 15 of 64; views are
those of `_views` (moves, crops, colours, blur), not RandAugment, and images are not mirrored, since digits do not bear
it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import Access, Context, Field, Fit, Split, register

from ._tuning import Tuning
from ._views import strong, weak

UNKNOWN = -1
"""The label of an image that has none."""


@dataclass(frozen=True, eq=False)
class Beside(Split):
    """Labelled samples, and images without labels of which every batch holds some besides."""

    images: Split
    ratio: int

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield weak views of samples, weak and then strong views of images, and labels, unknown for images."""
        others = self.images.batches(self.ratio * batch_size, generator)
        for x, y in super().batches(batch_size, generator):
            u = next(others)[0]
            views = torch.cat([weak(x, generator), weak(u, generator), strong(u, generator)])
            yield views, torch.cat([y, y.new_full((2 * len(u),), UNKNOWN)])


@register
class FixMatch(Tuning):
    """Train on the labelled target samples, and on what the model is sure of among images without labels."""

    name = "fixmatch"
    paper = "https://arxiv.org/abs/2001.07685"
    access: ClassVar[Access] = Access(pool=True)

    augment: Literal["none"] = "none"
    threshold: float = Field(default=0.95, gt=0, le=1)
    weight: float = Field(default=1.0, ge=0)
    ratio: int = Field(default=1, ge=1)

    def fit_of(self, model: nn.Module, ctx: Context) -> Fit:
        """Return the training of the model."""
        assert ctx.target is not None and ctx.unlabelled is not None
        return self.tuning(model, ctx, Beside(ctx.target.x, ctx.target.y, ctx.unlabelled, self.ratio), loss=self._loss)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        known = labels != UNKNOWN
        weakly, strongly = logits[~known].chunk(2)
        sure, guess = weakly.detach().softmax(1).max(1)
        each = F.cross_entropy(strongly, guess, reduction="none") * (sure >= self.threshold)
        return F.cross_entropy(logits[known], labels[known]) + self.weight * each.mean()
