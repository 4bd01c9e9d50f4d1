"""NTP: ADMM pruning to an encoder whose few weights serve the source and not the target.

Paper: Ding et al., ECCV 2024, "Non-transferable Pruning". W minimises
CE_S - alpha * min(CE_T, ceiling) + strength * B/W(f_T) + rho/2 * sum_l |W_l - Z_l + U_l|^p      (`fisher`), or
CE_S - alpha * min(CE_T, ceiling) * min(MMD(f_S, f_T), 1) + rho/2 * sum_l |W_l - Z_l + U_l|^p    (`mmd`),
then Z = projection(W + U) inside the mask, U = U + W - Z, and the mask is where Z is not zero. Features are normalised
over channels; CE_T is taken by a target head that was trained on the pretrained encoder and then frozen.

Deviations: p = 2 by default (`norm_power=1` is the public code's norm without the square); the default projection keeps
the exact top k of all layers on a cubic schedule that ends at `ramp` of the iterations (`soft_threshold` is the public
code's l1/rho, which leaves the sparsity to chance); batch norm is not pruned; the source head trains along; source and
target share a batch; features are pooled; gradients are clipped. The public code reports source accuracy after further
source training of a model that it does not release; here that training, inside the mask, is part of what is released.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import Context, Defense, Field, create_optimizer, descend, features, head, register

from ._fisher import fisher_ratio
from ._heads import fitted_head
from ._mmd import mmd
from ._pruning import admm_penalty, clear, cubic_sparsity, encoder_weights, largest, soft_threshold, tune_masked


@register
class NTP(Defense):
    """Prune by ADMM against the target, then tune on source inside the mask."""

    name = "ntp"
    paper = "https://arxiv.org/abs/2410.08015"
    needs_target = True
    needs_target_labels = True
    masked = True
    quick = {"iterations": 5, "steps": 8}

    regulariser: Literal["fisher", "mmd"] = "fisher"
    projection: Literal["topk", "soft_threshold"] = "topk"
    sparsity: float = Field(default=0.98, gt=0, lt=1)
    ramp: float = Field(default=0.6, gt=0, le=1)
    iterations: int = Field(default=20, ge=1)
    steps: int = Field(default=15, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=8e-4, ge=0)
    rho: float = Field(default=5e-3, gt=0)
    norm_power: Literal[1, 2] = 2
    l1: float = Field(default=1e-4, gt=0)
    alpha: float = Field(default=0.1, ge=0)
    ceiling: float = Field(default=10.0, gt=0)
    strength: float = Field(default=100.0, ge=0)
    clip: float = Field(default=5.0, gt=0)
    head_steps: int = Field(default=60, ge=1)
    tune_steps: int = Field(default=120, ge=1)
    tune_lr: float = Field(default=5e-3, gt=0)
    batch_size: int = Field(default=32, ge=1)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the pruned model."""
        assert ctx.source is not None and ctx.target is not None
        size = min(self.batch_size, len(ctx.source), len(ctx.target))
        source = ctx.source.batches(size, ctx.generator("source"))
        target = ctx.target.batches(size, ctx.generator("target"))
        target_head = fitted_head(model, ctx, self.head_steps, self.lr, self.batch_size)
        weights = encoder_weights(model)
        z = [w.detach().clone() for w in weights]
        u = [torch.zeros_like(w) for w in weights]
        masks = [torch.ones_like(w, dtype=torch.bool) for w in weights]
        model.train()
        for iteration in range(1, self.iterations + 1):
            optimizer = create_optimizer(model.parameters(), "adam", self.lr, self.weight_decay)
            for step in range(1, self.steps + 1):
                penalty = self.rho / 2 * admm_penalty(weights, z, u, self.norm_power)
                loss = self._loss(model, target_head, *next(source), *next(target))
                descend(optimizer, loss + penalty, step, self.clip)
                clear(weights, masks)
            z = self._project([(w.detach() + d) * m for w, d, m in zip(weights, u, masks, strict=True)], iteration)
            u = [d + w.detach() - t for w, d, t in zip(weights, u, z, strict=True)]
            masks = [t != 0 for t in z]
        tune_masked(model, masks, ctx, self.tune_steps, self.tune_lr, self.batch_size)
        return model

    def _loss(self, model: nn.Module, target_head: nn.Linear, xs: Tensor, ys: Tensor, xt: Tensor, yt: Tensor) -> Tensor:
        fs, ft = features(model, torch.cat([xs, xt])).chunk(2)
        kept = F.cross_entropy(head(model)(fs), ys)
        leak = self.alpha * F.cross_entropy(target_head(ft), yt).clamp_max(self.ceiling)
        fs, ft = F.normalize(fs, dim=1), F.normalize(ft, dim=1)
        if self.regulariser == "mmd":
            return kept - leak * mmd(fs, ft).clamp_max(1)
        return kept - leak + self.strength * fisher_ratio(ft, yt)

    def _project(self, x: Sequence[Tensor], iteration: int) -> list[Tensor]:
        if self.projection == "soft_threshold":
            return [soft_threshold(t, self.l1 / self.rho) for t in x]
        sparsity = cubic_sparsity(self.sparsity, iteration, max(1, round(self.ramp * self.iterations)))
        return [t * mask for t, mask in zip(x, largest(x, sparsity), strict=True)]
