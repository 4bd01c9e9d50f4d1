"""LP-FT: linear probing, then fine-tuning; the head learns on frozen features first, so that they are not distorted.

Paper: Kumar et al., ICLR 2022, "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution",
section 3.4. The head takes the first `head_share` of the steps at the rate `head_lr`, on features in eval mode which
are computed once; then everything trains at `lr`. Each phase has a schedule of its own, warm-up belongs to the second.

Deviations: both phases share one budget of steps and one optimizer, so the probe need not have converged when the
second phase starts. Views (`augment`) are drawn in the second phase alone.
"""

from collections.abc import Iterator
from typing import Literal

from torch import nn

from ntbench.method import Context, Field, Split, fit, head, register, reset_head

from ._adaptation import encode_all
from ._tuning import Tuning, renew_misfit


@register
class LpFt(Tuning):
    """Train the head on frozen features, then everything."""

    name = "lp_ft"
    paper = "https://arxiv.org/abs/2202.10054"

    init: Literal["keep", "reinit"] = "keep"
    head_share: float = Field(default=0.25, ge=0, lt=1)
    head_lr: float = Field(default=0.03, gt=0)

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        """Yield the model after every step of both phases."""
        if self.init == "reinit":
            reset_head(model, ctx.target_classes, ctx.generator("head"))
        renew_misfit(model, ctx)
        steps = int(self.head_share * self.granted(ctx))
        if steps:
            yield from self._probe(model, ctx, steps)
        yield from self.tune(model, ctx, spent=steps)

    def _probe(self, model: nn.Module, ctx: Context, steps: int) -> Iterator[nn.Module]:
        """Train the head alone and yield the model after every step."""
        assert ctx.target is not None
        inputs, _ = encode_all(model, ctx.target.x)
        training = self.training(steps).model_copy(update={"lr": self.head_lr, "warmup": 0})
        for _ in fit(head(model), Split(inputs, ctx.target.y), training, ctx.generator("head batches")):
            yield model
