"""Fine-tuning on labelled target data: direct-all, direct-FC, init-FC-all and init-FC-FC of NTLBench, in any optimizer.

Paper: none of its own; the strategies are those of Hong et al. 2025, section 4. Parameters that train are `scope`;
`init` re-draws the last layer first (`reinit`) or everything behind the feature maps (`whole`, their RTAL);
`mask="keep"` puts the released zeros back after every step, as the public code of NTP does, and `dense` lets them grow.
`layer_decay` below 1 lowers the rate from layer to layer towards the input, and `augment` draws a view of every image.

Deviations: training the head alone runs on features in eval mode, where NTLBench keeps batch norm and dropout in train
mode; a head for another number of classes is always drawn anew, as torch draws a linear layer, not from N(0, 0.01^2).
"""

from typing import Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from ntbench.method import Context, Fit, Mask, head, register, reset_head

from ._tuning import Tuning, zeros_of


@register
class FineTune(Tuning):
    """Train on the labelled target samples."""

    name = "finetune"
    paper = "https://arxiv.org/abs/2502.13593"

    scope: Literal["all", "head"] = "all"
    init: Literal["keep", "reinit", "whole"] = "keep"
    mask: Mask = "dense"

    @model_validator(mode="after")
    def _sees_images(self) -> Self:
        if self.scope == "head" and (self.augment != "none" or self.layer_decay < 1 or self.init == "whole"):
            raise ValueError("trains one layer on features; leave augment, layer_decay and init='whole' to scope='all'")
        return self

    @property
    def respects_mask(self) -> bool:
        """Return whether the released zeros stay."""
        return self.mask == "keep"

    @property
    def on_features(self) -> bool:
        """Return whether the head alone trains."""
        return self.scope == "head"

    def fit_of(self, model: nn.Module, ctx: Context) -> Fit:
        """Return the training of the model."""
        assert ctx.target is not None
        clear = zeros_of(model) if self.respects_mask else lambda: None
        if self.init == "reinit":
            reset_head(model, ctx.target_classes, ctx.generator("head"))
        elif self.init == "whole":
            renew_classifier(model, ctx, ctx.target.x)
        return self.tuning(model, ctx, after_step=clear)


def renew_classifier(model: nn.Module, ctx: Context, x: Tensor) -> None:
    """Draw anew every parameter that stands between the feature maps of images x and the logits."""
    with torch.no_grad():
        maps = model.eval().forward_features(x[:1])  # type: ignore[operator]
    # An empty batch shows which parameters are used and spends no training sample.
    logits = model.forward_head(maps[:0])  # type: ignore[operator]
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(logits.sum(), list(parameters.values()), allow_unused=True)
    fresh = ctx.fresh(head(model).out_features)
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        if gradient is not None:
            parameter.data.copy_(fresh.get_parameter(name).data)
    reset_head(model, ctx.target_classes, ctx.generator("head"))
