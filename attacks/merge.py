"""Merging: the released model is averaged with a clean one of the attacker's own, then trained on the target.

Paper: the average of weights is that of Wortsman et al., CVPR 2022, "Robust fine-tuning of zero-shot models":
theta = (1 - clean) * protected + clean * theta_clean, over all parameters. The clean model is a fresh network that
trains on source for a share of `share` of the steps; the other steps train the average on the target.

Deviations: there, both models come from one initialisation, and the average is not trained; here they have nothing in
common, as nobody publishes clean weights of these networks. Running statistics of batch norm are not averaged but
estimated anew on target images. Until the models meet, the clean one is what the attack yields.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from torch import nn

from ntbench.method import Access, Context, Field, Optimizer, head, register

from ._blending import blend
from ._phases import phases
from ._tuning import Tuning


@register
class Merge(Tuning):
    """Average with a clean source model, then train."""

    name = "merge"
    paper = "https://arxiv.org/abs/2109.01903"
    objectives = ("classification", "denoising")
    access: ClassVar[Access] = Access(source=True, target="labelled")

    optimizer: Optimizer = "adam"
    lr: float = Field(default=3e-3, gt=0)
    share: float = Field(default=0.3, ge=0, lt=1)
    clean: float = Field(default=0.3, ge=0, le=1)

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        """Yield the clean model after every step on source, then the average after every step on the target."""
        assert ctx.target is not None
        training, adapting = phases(ctx, self.share)
        classes = head(model).out_features
        other = ctx.fresh(classes)
        if training.steps:
            for _ in self.tuning(other, replace(training, target=ctx.source, target_classes=classes)).run():
                yield other
        blend(model, other, 1 - self.clean, self.clean, ctx.target.whole(ctx.generator("shown"))[0])
        for _ in self.tuning(model, adapting).run():
            yield model
