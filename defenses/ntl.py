"""NTL: trains the source task while it pushes target labels and target features away, both within bounds.

Paper: Wang et al., ICLR 2022, "Non-Transferable Learning" (target-specified). With CE / K in place of CE
(`scale="klmean"`, the KL to one-hot labels averaged over the K classes too, as published), on equal batches:
L = CE_S - min(1, alpha * CE_T) * min(1, beta * MMD(f_S, f_T)). A bounded factor keeps no gradient of its own.

Deviations: beta is ten times the public one; `scale="nats"` bounds the target at 1 / alpha nats, whatever K is, and is
weaker. Features are the input of the classifier, not an inner VGG layer. Under batch norm each domain is normalised by
statistics of its own, and the running ones are the source's (`batches="own"`): an attacker has target batches alone.
`joint` is NTLBench's one pass; `separate` is the paper's two passes, whose running statistics mix both. Without batch
norm all three are one. Gradients are clipped; the rate does not decay. At each of `checks` looks that finds more than
`tolerance` of the source lost, on validation data, `repair_steps` on source alone follow; the last weights within it
are released. Where the target has other classes than the source, CE_T is taken by a head of its own, which is trained
on every batch before it judges it.
"""

from functools import partial

from torch import Tensor, nn

from ntbench.method import Context, Defense, Field, create_optimizer, register

from ._bounded import Batches, Scale, bounded_loss
from ._domains import Batch, descend_both, pairs, repairing, watched
from ._guard import TOLERANCE, SourceGuard
from ._heads import Judge, target_judge


@register
class NTL(Defense):
    """Train with the bounded non-transferability loss."""

    name = "ntl"
    version = 2
    paper = "https://arxiv.org/abs/2106.06916"
    needs_target = True
    needs_target_labels = True
    quick = {"steps": 40}

    alpha: float = Field(default=0.1, gt=0)
    beta: float = Field(default=1.0, gt=0)
    scale: Scale = "klmean"
    batches: Batches = "own"
    steps: int = Field(default=250, ge=1)
    lr: float = Field(default=5e-4, gt=0)
    batch_size: int = Field(default=32, ge=1)
    clip: float = Field(default=5.0, gt=0)
    head_steps: int = Field(default=60, ge=1)
    refits: int = Field(default=5, ge=0)
    checks: int = Field(default=10, ge=1)
    repair_steps: int = Field(default=24, ge=0)
    tolerance: float = Field(default=TOLERANCE, ge=0, le=1)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the last model within tolerance on the way down the loss."""
        assert ctx.source is not None and ctx.target is not None
        guard = SourceGuard(model, ctx, self.tolerance)
        batches = pairs(ctx.source, ctx.target, self.batch_size, ctx)
        judge = target_judge(model, ctx, self.head_steps, self.refits)
        optimizer = create_optimizer(model.parameters(), "adam", self.lr)
        model.train()
        training = descend_both(batches, partial(self._loss, model, judge), optimizer, self.steps, self.clip)
        look = repairing(guard, model, ctx, self.lr, self.batch_size, self.repair_steps)
        watched(guard, training, self.steps, self.checks, look)
        return model

    def _loss(self, model: nn.Module, judge: Judge, source: Batch, target: Batch) -> Tensor:
        return bounded_loss(model, judge, source, target, self.alpha, self.beta, self.scale, self.batches)
