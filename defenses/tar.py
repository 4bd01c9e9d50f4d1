"""TAR: meta-learned weights on which a fine-tuned copy, whoever tunes it and how, keeps predicting at random.

Paper: Tamirisa et al. 2024, "Tamper-Resistant Safeguards for Open-Weight LLMs". Each outer loop draws an attacker and
lets it fine-tune a copy, theta_0 = theta, ..., theta_K. One Adam step follows along the gradient of the retain loss
CE_S + `retain` * mean |f(x) - f_0(x)|_2 / mean |f_0(x)|_2 (features against the original's, source data) plus `scale`
times sum_i w_i grad L(theta_i), i = `every`, 2 `every`, ..., first order: the tamper resistance. L is the negative
entropy of predictions on target data held out from the attackers, and w_i ~ exp(`growth` * (i - K) / K) favours late
steps.

Deviations: ported from language models to images: an attacker is a fine-tuning on target labels whose optimizer, rate
(log-uniform) and steps are drawn (paper: AdamW, one of three rates, 64 steps). Mixtures of attack data, benign data
first and three attackers a loop are left out. The w_i sum to 1 (public code: growth / K = 4 / 64, not divided). The
copy's head is drawn anew with probability `reinit`, and always where class counts differ. L is taken on fresh held-out
batches (public code: one along an attack), the distance on the last features (every layer), and gradients are clipped.
Loops end with `retain_steps` under an Adam of their own, `repair_steps` more where source accuracy on validation data
is more than `tolerance` below the start; the last state within it is released. Buffers stay out of the simulation. The
distance is relative to the size of the features, so that `retain` does not depend on the network, and the original is
in eval mode.
"""

import copy
import math
from functools import partial
from typing import Annotated

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import Context, Defense, Field, create_optimizer, descend, features, head, register

from ._domains import keep_source
from ._guard import TOLERANCE, SourceGuard
from ._losses import negative_entropy
from ._meta import (
    Attacker,
    Batches,
    attack_steps,
    attackers_copy,
    check_attackers,
    drawn_attacker,
    linear,
    weighted_sum,
)

Count = Annotated[int, Field(ge=1)]


def late_weights(steps: int, every: int, growth: float) -> list[float]:
    """Return exp(growth * (i - K) / K) of every m-th of K steps, i = m, 2 m, ..., scaled to sum 1."""
    weights = [math.exp(growth * (i - steps) / steps) for i in range(every, steps + 1, every)]
    return [w / sum(weights) for w in weights]


@register
class TAR(Defense):
    """Train on source while simulated attackers of every kind find nothing but entropy."""

    name = "tar"
    version = 2
    paper = "https://arxiv.org/abs/2408.00761"
    needs_target = True
    needs_target_labels = True
    quick = {"loops": 4, "inner_steps": (4, 6), "every": 2}

    loops: int = Field(default=50, ge=1)
    attackers: tuple[Attacker, ...] = Field(default=(("momentum", 3e-3, 5e-2), ("adam", 3e-4, 5e-3)), min_length=1)
    inner_steps: tuple[Count, Count] = (16, 48)
    every: int = Field(default=4, ge=1)
    growth: float = Field(default=4.0, ge=0)
    scale: float = Field(default=20.0, ge=0)
    held_out: float = Field(default=0.25, gt=0, lt=1)
    reinit: float = Field(default=0.25, ge=0, le=1)
    retain: float = Field(default=1.0, ge=0)
    lr: float = Field(default=1e-2, gt=0)
    clip: float = Field(default=5.0, gt=0)
    retain_steps: int = Field(default=12, ge=0)
    retain_lr: float = Field(default=1e-3, gt=0)
    repair_steps: int = Field(default=24, ge=0)
    tolerance: float = Field(default=TOLERANCE, ge=0, le=1)
    batch_size: int = Field(default=32, ge=1)

    @model_validator(mode="after")
    def _ranges(self) -> "TAR":
        if not self.every <= self.inner_steps[0] <= self.inner_steps[1]:
            raise ValueError(f"inner_steps={self.inner_steps} must rise from at least every={self.every}")
        check_attackers(self.attackers)
        return self

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the last model whose source accuracy on validation data is within tolerance of the start."""
        assert ctx.source is not None and ctx.target is not None
        source = ctx.source.batches(self.batch_size, ctx.generator("source"))
        order = torch.randperm(len(ctx.target), generator=ctx.generator("held out")).to(ctx.device)
        parts = order.tensor_split([max(1, round(self.held_out * len(order)))])
        unseen, seen = (ctx.target.subset(p).batches(self.batch_size, ctx.generator("target")) for p in parts)
        chance = ctx.generator("attackers")
        original = copy.deepcopy(model).eval().requires_grad_(False)
        resist = create_optimizer(model.parameters(), "adam", self.lr)
        retain = create_optimizer(model.parameters(), "adam", self.retain_lr)
        guard, steps = SourceGuard(model, ctx, self.tolerance), (self.retain_steps, self.repair_steps)
        model.train()
        for loop in range(1, self.loops + 1):
            own, gradients = self._resistance(model, ctx.target_classes, seen, unseen, chance)
            loss = self._retain_loss(model, original, *next(source)) + self.scale * linear(own, gradients)
            descend(resist, loss, loop, self.clip)
            keep_source(guard, retain, partial(self._retain_loss, model, original), source, *steps)
        guard.restore()
        return model

    def _resistance(
        self, model: nn.Module, classes: int, seen: Batches, unseen: Batches, chance: torch.Generator
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return parameters of the model and the gradients of what one drawn attack meets on its way."""
        clone, shared, own = attackers_copy(model, classes, self.reinit, chance)
        name, lr = drawn_attacker(self.attackers, chance)
        steps = int(torch.randint(self.inner_steps[0], self.inner_steps[1] + 1, (), generator=chance))
        attacker = create_optimizer(clone.parameters(), name, lr)
        met = attack_steps(
            clone, shared, attacker, seen, unseen, steps, lambda logits, _: negative_entropy(logits), self.every
        )
        return own, weighted_sum(shared, met, late_weights(steps, self.every, self.growth))

    def _retain_loss(self, model: nn.Module, original: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        now, then = features(model, x), features(original, x)
        length = torch.linalg.vector_norm(then, dim=1).mean()
        distance: Tensor = torch.linalg.vector_norm(now - then, dim=1).mean() / length
        return F.cross_entropy(head(model)(now), y) + self.retain * distance
