"""Pruning by ADMM: weights move towards a sparse copy of themselves while they minimise a loss."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import Context, Defense, Field, create_optimizer, descend

from ._domains import Batch
from ._fisher import balanced_batches, fisher_ratio, public_fisher_ratio
from ._pruning import (
    Stage,
    admm_penalty,
    clear,
    cubic_sparsity,
    encoder_weights,
    largest,
    soft_threshold,
    sparsity_of,
)

STILL = 1e-4
"""By how many nats a loss changes at most that stands still."""


class AdmmPruning(Defense):
    """What defenses that prune by ADMM share: W minimises loss + rho/2 * sum_l |W_l - Z_l + U_l|^norm_power.

    After `steps` steps Z = projection(W + U), U = U + W - Z, and the mask is where Z is not zero. `topk` keeps the
    largest weights of all layers on a cubic schedule, which reaches `sparsity` at the share `ramp` of the iterations.
    `soft_threshold` shrinks by l1 / rho; after `settle` iterations it stops as soon as the masks are sparser than
    `sparsity` or the loss stands still, as the public code does, and `ramp` is without effect. With `masking="steps"`
    weights outside the mask are set to zero after every step, as in the public code, so that rho only holds the others
    near where they are; with `end` rho alone draws them to zero. With `batch_norm="pruned"` weights and biases of batch
    norm count. `ratio="balanced"` measures scatter on batches with as many samples of every class and in a form that
    neither batch nor class count moves; `public` is the public code's ratio on plain batches, K times smaller.
    """

    projection: Literal["topk", "soft_threshold"] = "topk"
    batch_norm: Literal["kept", "pruned"] = "kept"
    sparsity: float = Field(default=0.98, gt=0, lt=1)
    ramp: float = Field(default=0.6, gt=0, le=1)
    masking: Literal["steps", "end"] = "steps"
    settle: int = Field(default=10, ge=0)
    iterations: int = Field(default=20, ge=1)
    steps: int = Field(default=15, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=8e-4, ge=0)
    rho: float = Field(default=5e-3, gt=0)
    norm_power: Literal[1, 2] = 2
    ratio: Literal["balanced", "public"] = "balanced"
    strength: float = Field(default=10.0, ge=0)
    target_batch_size: int = Field(default=128, ge=2)
    l1: float = Field(default=1e-4, gt=0)
    clip: float = Field(default=5.0, gt=0)

    def _target_batches(self, ctx: Context, plain: int = 0) -> Iterator[Batch]:
        """Yield target batches large enough for the ratio of scatters, or plain ones of so many samples."""
        assert ctx.target is not None
        if plain or self.ratio == "public":
            return ctx.target.batches(plain or self.target_batch_size, ctx.generator("target"))
        return balanced_batches(ctx.target, self.target_batch_size, ctx.generator("target"))

    def _scatter(self, ft: Tensor, yt: Tensor) -> Tensor:
        """Return B/W of target features [n, d], normalised over channels."""
        measure = public_fisher_ratio if self.ratio == "public" else fisher_ratio
        return measure(F.normalize(ft, dim=1), yt)

    def _pruned(self, model: nn.Module) -> list[Tensor]:
        return encoder_weights(model, batch_norm=self.batch_norm == "pruned")

    def _stages(
        self, model: nn.Module, weights: Sequence[Tensor], trained: Sequence[Tensor], loss: Callable[[], Tensor]
    ) -> Iterator[Stage]:
        """Yield the state and the masks over `weights` after every iteration; steps take losses down over `trained`."""
        z = [w.detach().clone() for w in weights]
        u = [torch.zeros_like(w) for w in weights]
        masks = [torch.ones_like(w, dtype=torch.bool) for w in weights]
        before = math.inf
        for iteration in range(1, self.iterations + 1):
            optimizer = create_optimizer(trained, "adam", self.lr, self.weight_decay)
            for step in range(1, self.steps + 1):
                penalty = self.rho / 2 * admm_penalty(weights, z, u, self.norm_power)
                found = loss() + penalty
                descend(optimizer, found, step, self.clip)
                if self.masking == "steps":
                    clear(weights, masks)
            held = masks if self.masking == "steps" else [torch.ones_like(m) for m in masks]
            z = self._project([(w.detach() + d) * m for w, d, m in zip(weights, u, held, strict=True)], iteration)
            u = [d + w.detach() - t for w, d, t in zip(weights, u, z, strict=True)]
            masks = [t != 0 for t in z]
            yield Stage.of(model, masks)
            still, before = abs(found.item() - before) < STILL, found.item()
            done = still or sparsity_of(masks) > self.sparsity
            if self.projection == "soft_threshold" and iteration > self.settle and done:
                return

    def _project(self, x: Sequence[Tensor], iteration: int) -> list[Tensor]:
        if self.projection == "soft_threshold":
            return [soft_threshold(t, self.l1 / self.rho) for t in x]
        sparsity = cubic_sparsity(self.sparsity, iteration, max(1, round(self.ramp * self.iterations)))
        return [t * mask for t, mask in zip(x, largest(x, sparsity), strict=True)]
