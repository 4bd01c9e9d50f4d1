"""CUTI: pushes target labels away both plain and, on every other step, in the style of the source.

Paper: Wang et al., CVPR 2023, "Model Barrier: A Compact Un-Transferable Isolation Domain for Model Intellectual
Property Protection" (target-specified). L = CE_S - min(1, alpha * CE_T'), where T' is the target on even steps and on
odd steps the target restyled at every stage border, x_T * sigmoid(B std_S) + sigmoid(A mean_S). A and B are 1x1
convolutions without bias; means and deviations are those of a source image's channels over all positions.

Deviations: the public code draws A and B anew on every call and never trains them (`style="random_per_call"`, here the
default too); `fixed_random` draws them once, `learned` trains them down L with the model, as the paper has it. Losses
are in nats; `scale="klmean"` is the public code's CE / K. Borders are timm's stages, at most five, in place of five
cuts of a VGG, without maps of one position; variances are divided by n; a transformer's positions are its tokens.
A target with another number of classes is judged by a frozen head of its own. The rate falls to 0 once, not by 0.999 a
step; gradients are clipped. Of the states seen every `check_every` steps, the last one within `tolerance` of the source
accuracy at the start, on validation data, is released.
"""

import torch
from torch import Tensor, nn

from ntbench.method import (
    Context,
    Defense,
    Field,
    Schedule,
    create_optimizer,
    create_schedule,
    descend,
    features,
    head,
    register,
)

from ._bounded import Scale, label_loss
from ._guard import SourceGuard
from ._heads import target_head
from ._style import Kind, StyleTransfer


@register
class CUTI(Defense):
    """Train against the plain and the restyled target in turn."""

    name = "cuti"
    paper = "https://arxiv.org/abs/2303.11078"
    needs_target = True
    needs_target_labels = True
    quick = {"steps": 50}

    style: Kind = "random_per_call"
    alpha: float = Field(default=0.1, gt=0)
    scale: Scale = "nats"
    steps: int = Field(default=250, ge=1)
    lr: float = Field(default=5e-4, gt=0)
    schedule: Schedule = "linear"
    batch_size: int = Field(default=32, ge=1)
    clip: float = Field(default=5.0, gt=0)
    head_steps: int = Field(default=100, ge=1)
    check_every: int = Field(default=25, ge=1)
    tolerance: float = Field(default=0.02, ge=0, le=1)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the last model within tolerance on the way down the loss."""
        assert ctx.source is not None and ctx.target is not None
        size = min(self.batch_size, len(ctx.source), len(ctx.target))
        source = ctx.source.batches(size, ctx.generator("source"))
        target = ctx.target.batches(size, ctx.generator("target"))
        guard = SourceGuard(model, ctx, self.tolerance)
        judge = target_head(model, ctx, self.head_steps)
        styles = StyleTransfer(model, ctx.source.x[:2], self.style, normalise=False, generator=ctx.generator("style"))
        optimizer = create_optimizer([*model.parameters(), *styles.parameters()], "adam", self.lr)
        set_rate = create_schedule(optimizer, self.schedule, self.steps)
        model.train()
        for step in range(1, self.steps + 1):
            (xs, ys), (xt, yt) = next(source), next(target)
            x = torch.cat([xs, xt])
            f = styles.features(x, parts=2)[0] if step % 2 else features(model, x)
            fs, ft = f.chunk(2)
            descend(optimizer, self._loss(head(model)(fs), ys, judge(ft), yt), step, self.clip)
            set_rate(step)
            if step % self.check_every == 0 or step == self.steps:
                guard.holds()
        guard.restore()
        return model

    def _loss(self, source: Tensor, ys: Tensor, target: Tensor, yt: Tensor) -> Tensor:
        leak = (self.alpha * label_loss(target, yt, self.scale)).clamp_max(1)
        return label_loss(source, ys, self.scale) - leak
