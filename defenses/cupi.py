"""CUPI: as CUTI with the plain and the restyled target side by side, and against what memories know of every class.

Paper: Wang et al., TPAMI 2024, "Say No to Freeloader: Protecting Intellectual Property of Your Deep Model". With c the
bound to at most 1, one batch of source s, restyled target c and plain target t, and k = k_max * ((epoch + 1) / E)^0.9:
L = CE_s - c(alpha CE_c) - c(alpha CE_t) - c(k D_s) + c(k D_t) - c(k M_t) - c(k V_t).
D_s and D_t are the squared distances of features to the remembered mean of restyled target features of their class; M_t
and V_t those of channel means and deviations of the target to the remembered ones of source images of its class, summed
over stage borders. Restyling is (x_c - mean_c) / std_c * sigmoid(B std_s) + sigmoid(A mean_s). Memories hold the last
value of every sample, at first the given model's, not restyled.

Deviations: the public code has epoch + 1/E in k (`k_schedule="reference"`), which saturates the bounds. Epochs are E
equal shares of the steps. Features are the classifier's input, without another bottleneck. Where class counts differ,
memories hold one class. Styles, borders, scale, statistics of batch norm, the head for other classes, rate, clip and
guard are as in `cuti`.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import (
    Context,
    Defense,
    Field,
    Schedule,
    Split,
    create_optimizer,
    head,
    register,
)

from ._bounded import Scale, label_loss
from ._domains import Batch, descend_both, pairs, passing, repairing, watched
from ._guard import TOLERANCE, SourceGuard
from ._heads import target_judge
from ._memory import ClassMemory, numbered
from ._style import Kind, Style, StyleTransfer, joined


@register
class CUPI(Defense):
    """Train against the plain and the restyled target at once, with class-wise memories of features and styles."""

    name = "cupi"
    version = 2
    paper = "https://arxiv.org/abs/2408.13161"
    needs_target = True
    needs_target_labels = True
    quick = {"steps": 50}

    style: Kind = "random_per_call"
    alpha: float = Field(default=0.1, gt=0)
    k_max: float = Field(default=0.1, ge=0)
    k_schedule: Literal["corrected", "reference"] = "corrected"
    epochs: int = Field(default=30, ge=1)
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

    def k(self, step: int) -> float:
        """Return the weight of the memory terms at a step, counted from 1."""
        epoch = (step - 1) * self.epochs // self.steps
        passed = (epoch + 1) / self.epochs if self.k_schedule == "corrected" else epoch + 1 / self.epochs
        return self.k_max * float(passed**0.9)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the last model within tolerance on the way down the loss."""
        assert ctx.source is not None and ctx.target is not None
        guard = SourceGuard(model, ctx, self.tolerance)
        judge = target_judge(model, ctx, self.head_steps, self.refits)
        styles = StyleTransfer(model, ctx.source.x[:2], self.style, normalise=True, generator=ctx.generator("style"))
        memory = _Memories(styles, ctx.source, ctx.target, head(model).out_features == ctx.target_classes)
        optimizer = create_optimizer([*model.parameters(), *styles.parameters()], "adam", self.lr)
        weights = iter([self.k(step) for step in range(1, self.steps + 1)])
        ys, yt = ctx.source.y, ctx.target.y

        def loss(source: Batch, target: Batch) -> Tensor:
            (xs, i), (xt, j) = source, target
            fs, s = styles.observe(xs)
            with passing(model):
                fc = styles.restyled(xt, s)
                ft, t = styles.observe(xt)
            l_c, l_t = ((self.alpha * label_loss(judge(f, yt[j]), yt[j], self.scale)).clamp_max(1) for f in (fc, ft))
            d_s, d_t, m_t, v_t = (next(weights) * memory.gaps(i, j, (fs, fc, ft), (s, t))).clamp_max(1)
            kept: Tensor = label_loss(head(model)(fs), ys[i], self.scale)
            return kept - l_c - l_t - d_s + d_t - m_t - v_t

        batches = pairs(numbered(ctx.source), numbered(ctx.target), self.batch_size, ctx)
        model.train()
        training = descend_both(batches, loss, optimizer, self.steps, self.clip, self.schedule)
        look = repairing(guard, model, ctx, self.lr, self.batch_size, self.repair_steps)
        watched(guard, training, self.steps, self.checks, look)
        return model


class _Memories:
    """What is remembered of both domains; labels count as one class where the domains' class counts differ."""

    def __init__(self, styles: StyleTransfer, source: Split, target: Split, shared: bool) -> None:
        self._ys, self._yt = (y if shared else torch.zeros_like(y) for y in (source.y, target.y))
        widths = [border.channels for border in styles.borders]
        self._shares = torch.cat([torch.eye(2).repeat_interleave(width, 0) / width for width in widths]).to(source.x)
        classes = int(torch.cat([self._ys, self._yt]).max()) + 1
        self._styles = ClassMemory(styles.look(source.x)[1], self._ys, classes)
        self._restyled = ClassMemory(styles.look(target.x)[0], self._yt, classes)

    def gaps(
        self, i: Tensor, j: Tensor, f: tuple[Tensor, Tensor, Tensor], seen: tuple[list[Style], list[Style]]
    ) -> Tensor:
        """Refresh with source samples i and target samples j, and return D_s, D_t, M_t and V_t, [4].

        Features are those of the source, the restyled and the plain target; styles those of the source and the target.
        """
        (fs, fc, ft), (s, t) = f, map(joined, seen)
        self._restyled.refresh(j, fc)
        self._styles.refresh(i, s)
        ys, yt, centres = self._ys[i], self._yt[j], self._restyled.means()
        away = (t - self._styles.means()[yt]).square().mean(0) @ self._shares
        return torch.stack([F.mse_loss(fs, centres[ys]), F.mse_loss(ft, centres[yt]), *away])
