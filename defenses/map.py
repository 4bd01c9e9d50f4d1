"""MAP: a learnt binary mask over frozen weights that drops what serves the target and keeps what serves the source.

Paper: Peng et al., CVPR 2024, "MAP: MAsk-Pruning for Source-Free Model Intellectual Property Protection", in its
source-available form. Every weight w of the encoder has a score a, starting at 1, and the network computes with
w * 1[a > threshold]; the indicator passes gradients on as if it were the identity. Adam moves the scores alone, down
L = CE_S - mean min(weight * CE_T, ceiling), in nats. What is released is w * 1[a > threshold].

Deviations: no public code exists and the paper's equations were not at hand, so the loss is the bounded form of NTL.
The bound holds for every target sample, since a bound on the mean of a batch (`bound="batch"`) is used up by a few
samples with huge losses while the others stay correct. Scores belong to single weights of convolutions and linear
layers; biases, norms and the classifier are not masked and do not train; batch norm is in eval mode; the rate falls to
0. Where the target has another number of classes, CE_T is taken by a head that is trained on the frozen encoder first.
Of the masks after every round, the last one within `tolerance` of the start on source validation data is released. The
source-free and data-free forms, and the inversion of the model that they need, are left out.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import (
    Context,
    Defense,
    Field,
    create_optimizer,
    head,
    register,
)

from ._domains import Batch, descend_both, pairs
from ._guard import TOLERANCE, SourceGuard
from ._heads import target_head
from ._pruning import encoder_weights
from ._straight_through import binary, features_with


@register
class MAP(Defense):
    """Learn which weights to keep."""

    name = "map"
    paper = "https://arxiv.org/abs/2403.04149"
    needs_target = True
    needs_target_labels = True
    masked = True

    weight: float = Field(default=0.1, ge=0)
    ceiling: float = Field(default=0.3, gt=0)
    bound: Literal["sample", "batch"] = "sample"
    threshold: float = Field(default=0.95, ge=0, lt=1)
    lr: float = Field(default=1e-2, gt=0)
    rounds: int = Field(default=15, ge=1)
    steps: int = Field(default=20, ge=1)
    head_steps: int = Field(default=100, ge=1)
    tolerance: float = Field(default=TOLERANCE, ge=0, le=1)
    batch_size: int = Field(default=32, ge=1)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the masked model."""
        assert ctx.source is not None and ctx.target is not None
        guard = SourceGuard(model, ctx, self.tolerance)
        trained = [p for p in model.parameters() if p.requires_grad]
        model.eval().requires_grad_(False)
        classify, leak = head(model), target_head(model, ctx, self.head_steps)
        masked = {id(w) for w in encoder_weights(model)}
        frozen = {name: p.clone() for name, p in model.named_parameters() if id(p) in masked}
        scores = {name: torch.ones_like(w, requires_grad=True) for name, w in frozen.items()}
        optimizer = create_optimizer(scores.values(), "adam", self.lr)
        steps = self.rounds * self.steps

        def loss(source: Batch, target: Batch) -> Tensor:
            kept = {name: w * binary(scores[name], self.threshold) for name, w in frozen.items()}
            fs, ft = features_with(model, kept, torch.cat([source[0], target[0]])).tensor_split([len(source[0])])
            harm = self._harm(F.cross_entropy(leak(ft), target[1], reduction="none"))
            return F.cross_entropy(classify(fs), source[1]) - harm

        batches = pairs(ctx.source, ctx.target, self.batch_size, ctx)
        for step in descend_both(batches, loss, optimizer, steps, schedule="linear"):
            if step % self.steps == 0:
                self._write(model, frozen, scores)
                guard.holds()
        guard.restore()
        for parameter in trained:
            parameter.requires_grad_(True)
        return model

    def _harm(self, losses: Tensor) -> Tensor:
        """Return the bounded loss on the target from the losses of its samples [n]."""
        if self.bound == "batch":
            return (self.weight * losses.mean()).clamp_max(self.ceiling)
        return (self.weight * losses).clamp_max(self.ceiling).mean()

    @torch.no_grad()
    def _write(self, model: nn.Module, frozen: dict[str, Tensor], scores: dict[str, Tensor]) -> None:
        for name, w in frozen.items():
            model.get_parameter(name).copy_(w * (scores[name] > self.threshold))
