"""LP-FT: linear probing, then fine-tuning; the head learns on frozen features first, so that they are not distorted.

Paper: Kumar et al., ICLR 2022, "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution",
section 3.4. The head takes the first `head_share` of the steps at the rate `head_lr`, on features in eval mode which
are computed once; then everything trains at `lr`. Each phase has a schedule of its own, warm-up belongs to the second.
Without a `head_lr` it is .03 for gradient descent and .003 for optimizers that scale their steps.

Deviations: both phases share one budget of steps and one optimizer, so the probe need not have converged when the
second phase starts. Views (`augment`) are drawn in the second phase alone.
"""

from collections.abc import Iterator
from typing import Literal

from torch import nn

from ntbench.method import Context, Field, Split, fit, head, register, reset_head

from ._adaptation import encode_all
from ._phases import phases
from ._tuning import Tuning, renew_misfit

PROBING = {"sgd": 0.03, "momentum": 0.03, "nesterov": 0.03}
"""Rates for the head by optimizer; ADAPTIVE is that of all others, whose steps do not grow with the gradient."""
ADAPTIVE = 0.003


@register
class LpFt(Tuning):
    """Train the head on frozen features, then everything."""

    name = "lp_ft"
    paper = "https://arxiv.org/abs/2202.10054"

    init: Literal["keep", "reinit"] = "keep"
    head_share: float = Field(default=0.25, ge=0, lt=1)
    head_lr: float | None = Field(default=None, gt=0)

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        """Yield the model after every step of both phases."""
        if self.init == "reinit":
            reset_head(model, ctx.target_classes, ctx.generator("head"))
        renew_misfit(model, ctx)
        probing, training = phases(ctx, self.head_share)
        if probing.steps:
            yield from self._probe(model, probing)
        for _ in self.tuning(model, training).run():
            yield model

    def _probe(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        """Train the head alone and yield the model after every step."""
        assert ctx.target is not None
        inputs, _ = encode_all(model, ctx.target.x)
        lr = PROBING.get(self.optimizer, ADAPTIVE) if self.head_lr is None else self.head_lr
        training = self.training(ctx.steps).model_copy(update={"lr": lr, "warmup": 0})
        for _ in fit(head(model), Split(inputs, ctx.target.y), training, ctx.generator("head batches")):
            yield model
