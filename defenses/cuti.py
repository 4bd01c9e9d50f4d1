"""CUTI: pushes target labels away both plain and, on every other step, in the style of the source.

Paper: Wang et al., CVPR 2023, "Model Barrier: A Compact Un-Transferable Isolation Domain for Model Intellectual
Property Protection" (target-specified). L = CE_S - min(1, alpha * CE_T'), where T' is the target on even steps and on
odd steps the target restyled at every stage border, x_T * sigmoid(B std_S) + sigmoid(A mean_S). A and B are 1x1
convolutions without bias; means and deviations are those of a source image's channels over all positions.

Deviations: the public code draws A and B anew on every call and never trains them (`style="random_per_call"`, here the
default too); `fixed_random` draws them once, `learned` trains them down L with the model, as the paper has it. CE is
CE / K as in the public code (`scale="klmean"`); `nats` is CE. Source and target pass apart, each normalised by batch
statistics of its own, and the running ones are the source's; without batch norm this is the public pass over both.
Borders are timm's stages, at most five, in place of five cuts of a VGG, without maps of one position; variances are
divided by n; a transformer's positions are its tokens. A target with another number of classes is judged by a head of
its own that is trained on every batch before it judges it. The rate falls to 0 once, not by 0.999 a step; gradients are
clipped. `checks` and `repair_steps` are those of `ntl`; the last state within `tolerance` of the source is released.
"""

from itertools import cycle

from torch import Tensor, nn

from ntbench.method import (
    Context,
    Defense,
    Field,
    Schedule,
    create_optimizer,
    features,
    head,
    register,
)

from ._bounded import Scale, label_loss
from ._domains import Batch, descend_both, pairs, passing, repairing, watched
from ._guard import TOLERANCE, SourceGuard
from ._heads import target_judge
from ._style import Kind, StyleTransfer


@register
class CUTI(Defense):
    """Train against the plain and the restyled target in turn."""

    name = "cuti"
    version = 2
    paper = "https://arxiv.org/abs/2303.11078"
    needs_target = True
    needs_target_labels = True
    quick = {"steps": 50}

    style: Kind = "random_per_call"
    alpha: float = Field(default=0.1, gt=0)
    scale: Scale = "klmean"
    steps: int = Field(default=250, ge=1)
    lr: float = Field(default=5e-4, gt=0)
    schedule: Schedule = "linear"
    batch_size: int = Field(default=32, ge=1)
    clip: float = Field(default=5.0, gt=0)
    head_steps: int = Field(default=100, ge=1)
    refits: int = Field(default=5, ge=0)
    checks: int = Field(default=10, ge=1)
    repair_steps: int = Field(default=24, ge=0)
    tolerance: float = Field(default=TOLERANCE, ge=0, le=1)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the last model within tolerance on the way down the loss."""
        assert ctx.source is not None and ctx.target is not None
        guard = SourceGuard(model, ctx, self.tolerance)
        judge = target_judge(model, ctx, self.head_steps, self.refits)
        styles = StyleTransfer(model, ctx.source.x[:2], self.style, normalise=False, generator=ctx.generator("style"))
        optimizer = create_optimizer([*model.parameters(), *styles.parameters()], "adam", self.lr)
        parity = cycle((True, False))

        def loss(source: Batch, target: Batch) -> Tensor:
            (xs, ys), (xt, yt) = source, target
            fs, givers = styles.observe(xs)
            with passing(model):
                ft = styles.restyled(xt, givers) if next(parity) else features(model, xt)
            return self._loss(head(model)(fs), ys, judge(ft, yt), yt)

        batches = pairs(ctx.source, ctx.target, self.batch_size, ctx)
        model.train()
        training = descend_both(batches, loss, optimizer, self.steps, self.clip, self.schedule)
        look = repairing(guard, model, ctx, self.lr, self.batch_size, self.repair_steps)
        watched(guard, training, self.steps, self.checks, look)
        return model

    def _loss(self, source: Tensor, ys: Tensor, target: Tensor, yt: Tensor) -> Tensor:
        leak = (self.alpha * label_loss(target, yt, self.scale)).clamp_max(1)
        return label_loss(source, ys, self.scale) - leak
