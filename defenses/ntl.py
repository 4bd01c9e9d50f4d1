"""NTL: trains the source task while it pushes target labels and target features away, both within bounds.

Paper: Wang et al., ICLR 2022, "Non-Transferable Learning" (target-specified). In nats, on equal batches:
L = CE_S - min(1, alpha * CE_T) * min(1, beta * MMD(f_S, f_T)). A bounded factor keeps no gradient of its own.

Deviations: the public code writes KL to one-hot labels averaged over classes too, which is CE / K, so that its bound
only bites at CE_T = K / alpha nats; here the bound is in nats and K plays no part (`scale="klmean"` is that form).
Features are the input of the classifier, not an inner VGG layer. Source and target share a batch by default
(`batches="joint"`, as NTLBench does for networks with batch norm); `separate` is the paper's two passes. Gradients are
clipped; the rate does not decay. The last weights within `tolerance` of the source accuracy at the start, on validation
data, are released; the steps at which that is looked at end with the last one.
Where the target has other classes than the source, a frozen head that was fitted to the target before takes CE_T.
"""

from torch import Tensor, nn

from ntbench.method import Context, Defense, Field, create_optimizer, descend, head, register

from ._bounded import Batches, Scale, bounded_loss
from ._guard import SourceGuard
from ._heads import fitted_head

CHECKS = 5


@register
class NTL(Defense):
    """Train with the bounded non-transferability loss."""

    name = "ntl"
    paper = "https://arxiv.org/abs/2106.06916"
    needs_target = True
    needs_target_labels = True
    quick = {"steps": 40}

    alpha: float = Field(default=0.1, gt=0)
    beta: float = Field(default=1.0, gt=0)
    scale: Scale = "nats"
    batches: Batches = "joint"
    steps: int = Field(default=250, ge=1)
    lr: float = Field(default=5e-4, gt=0)
    batch_size: int = Field(default=32, ge=1)
    clip: float = Field(default=5.0, gt=0)
    head_steps: int = Field(default=60, ge=1)
    head_lr: float = Field(default=2e-3, gt=0)
    tolerance: float = Field(default=0.02, ge=0, le=1)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the last model within tolerance on the way down the loss."""
        assert ctx.source is not None and ctx.target is not None
        guard = SourceGuard(model, ctx, self.tolerance)
        size = min(self.batch_size, len(ctx.source), len(ctx.target))
        source = ctx.source.batches(size, ctx.generator("source"))
        target = ctx.target.batches(size, ctx.generator("target"))
        own = head(model).out_features == ctx.target_classes
        judge = head(model) if own else fitted_head(model, ctx, self.head_steps, self.head_lr, self.batch_size)
        optimizer = create_optimizer(model.parameters(), "adam", self.lr)
        model.train()
        for step in range(1, self.steps + 1):
            descend(optimizer, self._loss(model, judge, *next(source), *next(target)), step, self.clip)
            if (self.steps - step) % max(1, self.steps // CHECKS) == 0:
                guard.holds()
        guard.restore()
        return model

    def _loss(self, model: nn.Module, judge: nn.Linear, xs: Tensor, ys: Tensor, xt: Tensor, yt: Tensor) -> Tensor:
        return bounded_loss(model, judge, (xs, ys), (xt, yt), self.alpha, self.beta, self.scale, self.batches)
