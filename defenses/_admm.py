"""Pruning by ADMM: weights move towards a sparse copy of themselves while they minimise a loss."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ntbench.method import Defense, Field, create_optimizer, descend

from ._pruning import admm_penalty, clear, cubic_sparsity, encoder_weights, largest, soft_threshold


class AdmmPruning(Defense):
    """What defenses that prune by ADMM share: W minimises loss + rho/2 * sum_l |W_l - Z_l + U_l|^norm_power.

    After `steps` steps Z = projection((W + U) * mask), U = U + W - Z, and the mask is where Z is not zero. `topk` keeps
    the largest weights of all layers on a cubic schedule, which reaches `sparsity` at the share `ramp` of the
    iterations; `soft_threshold` shrinks by l1 / rho. With `batch_norm="pruned"` weights and biases of batch norm count.
    """

    projection: Literal["topk", "soft_threshold"] = "topk"
    batch_norm: Literal["kept", "pruned"] = "kept"
    sparsity: float = Field(default=0.98, gt=0, lt=1)
    ramp: float = Field(default=0.6, gt=0, le=1)
    iterations: int = Field(default=20, ge=1)
    steps: int = Field(default=15, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=8e-4, ge=0)
    rho: float = Field(default=5e-3, gt=0)
    norm_power: Literal[1, 2] = 2
    l1: float = Field(default=1e-4, gt=0)
    clip: float = Field(default=5.0, gt=0)

    def _pruned(self, model: nn.Module) -> list[Tensor]:
        return encoder_weights(model, batch_norm=self.batch_norm == "pruned")

    def _masks(self, weights: Sequence[Tensor], trained: Sequence[Tensor], loss: Callable[[], Tensor]) -> list[Tensor]:
        """Return the masks over `weights` in which ADMM ends; every step takes a new loss down over `trained`."""
        z = [w.detach().clone() for w in weights]
        u = [torch.zeros_like(w) for w in weights]
        masks = [torch.ones_like(w, dtype=torch.bool) for w in weights]
        for iteration in range(1, self.iterations + 1):
            optimizer = create_optimizer(trained, "adam", self.lr, self.weight_decay)
            for step in range(1, self.steps + 1):
                penalty = self.rho / 2 * admm_penalty(weights, z, u, self.norm_power)
                descend(optimizer, loss() + penalty, step, self.clip)
                clear(weights, masks)
            z = self._project([(w.detach() + d) * m for w, d, m in zip(weights, u, masks, strict=True)], iteration)
            u = [d + w.detach() - t for w, d, t in zip(weights, u, z, strict=True)]
            masks = [t != 0 for t in z]
        return masks

    def _project(self, x: Sequence[Tensor], iteration: int) -> list[Tensor]:
        if self.projection == "soft_threshold":
            return [soft_threshold(t, self.l1 / self.rho) for t in x]
        sparsity = cubic_sparsity(self.sparsity, iteration, max(1, round(self.ramp * self.iterations)))
        return [t * mask for t, mask in zip(x, largest(x, sparsity), strict=True)]
