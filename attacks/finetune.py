"""Fine-tuning on labelled target data: direct-all, direct-FC, init-FC-all and init-FC-FC of NTLBench, in any optimizer.

Parameters that train are `scope`; `init` re-draws the head first; `mask="keep"` puts the released zeros back after
every step, as the public code of NTP does, and `dense` lets them grow. A head for another number of classes is always
drawn anew.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import nn

from ntbench.method import (
    Attack,
    Context,
    Field,
    Mask,
    Optimizer,
    Schedule,
    Split,
    Training,
    features,
    fit,
    head,
    register,
    reset_head,
)


@register
class FineTune(Attack):
    """Train on the labelled target samples."""

    name = "finetune"
    paper = "https://arxiv.org/abs/2502.13593"

    scope: Literal["all", "head"] = "all"
    init: Literal["keep", "reinit"] = "keep"
    optimizer: Optimizer = "momentum"
    lr: float = Field(default=1e-2, gt=0)
    schedule: Schedule = "linear"
    weight_decay: float = Field(default=0.0, ge=0)
    batch_size: int = Field(default=32, ge=1)
    steps: int | None = Field(default=None, ge=1)
    mask: Mask = "dense"

    @property
    def respects_mask(self) -> bool:
        """Return whether the released zeros stay."""
        return self.mask == "keep"

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        """Yield the model after every step."""
        assert ctx.target is not None
        if self.init == "reinit" or head(model).out_features != ctx.target_classes:
            reset_head(model, ctx.target_classes, ctx.generator("head"))
        zeros = [(p, p == 0) for p in model.parameters() if self.respects_mask and p.ndim > 1]
        training = Training(
            optimizer=self.optimizer,
            lr=self.lr,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            steps=self.steps or ctx.budget.steps,
            batch_size=self.batch_size,
        )
        trained, data = (model, ctx.target) if self.scope == "all" else (head(model), _featurised(model, ctx.target))
        for _ in fit(trained, data, training, ctx.generator("batches"), after_step=lambda: _clear(zeros)):
            yield model


def _featurised(model: nn.Module, data: Split) -> Split:
    model.eval()
    with torch.no_grad():
        return Split(features(model, data.x), data.y)


@torch.no_grad()
def _clear(zeros: list[tuple[nn.Parameter, torch.Tensor]]) -> None:
    for parameter, zero in zeros:
        parameter.masked_fill_(zero, 0.0)
