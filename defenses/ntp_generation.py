"""NTP's pruning for generation: a mask whose few weights denoise the source and not the target.

Paper: Ding et al., ECCV 2024, "Non-transferable Pruning", in its form without classes. With E the squared error of the
noise, W minimises
E_S - alpha * mean min(bound, E_T) * min(MMD(f_S, f_T), 1) + rho/2 * sum_l |W_l - Z_l + U_l|^p,
then Z = projection(W + U) inside the mask, U = U + W - Z, and the mask is where Z is not zero. Features are the maps
that the last convolution sees, normalised over channels at every place.

Deviations: the paper classifies; squared errors take the place of its two cross-entropies and the model's own last
layer that of the target head, and each image's error on the target is bounded by itself. `discrepancy="none"` leaves
the factor of the MMD out. The Fisher ratio needs classes and is left out. All else is as in `ntp`: the top k of all
layers on a cubic schedule, training on source inside the mask, and an earlier mask where the last one keeps less of the
source than `tolerance` allows on validation data.
"""

from functools import partial
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import Context, Field, head, register

from ._admm import AdmmPruning
from ._domains import Batch, both_features
from ._guard import TOLERANCE, SourceGuard
from ._mmd import mmd
from ._pruning import REMEDY, release_strongest, tune_masked


@register
class NTPGeneration(AdmmPruning):
    """Prune by ADMM against the target's error, then tune on source inside the mask."""

    name = "ntp_generation"
    paper = "https://arxiv.org/abs/2410.08015"
    objectives = ("denoising",)
    needs_target = True
    masked = True
    quick = {"iterations": 2, "steps": 4, "tune_steps": 4, "sparsity": 0.3, "batch_size": 16, "tolerance": 0.5}

    # What batch norm and the ratio of scatters ask for is no setting here.
    batch_norm: ClassVar[str] = "kept"  # type: ignore[misc]
    ratio: ClassVar[str] = "public"  # type: ignore[misc]
    strength: ClassVar[float] = 0.0  # type: ignore[misc]
    target_batch_size: ClassVar[int] = 0  # type: ignore[misc]

    discrepancy: Literal["mmd", "none"] = "mmd"
    alpha: float = Field(default=0.3, gt=0)
    bound: float = Field(default=1.0, gt=0)
    sparsity: float = Field(default=0.9, gt=0, lt=1)
    tune_steps: int = Field(default=120, ge=0)
    tune_lr: float = Field(default=5e-3, gt=0)
    batch_size: int = Field(default=32, ge=1)
    tolerance: float = Field(default=TOLERANCE, ge=0, le=1)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the pruned model."""
        assert ctx.source is not None and ctx.target is not None
        guard = SourceGuard(model, ctx, self.tolerance, REMEDY)
        size = min(self.batch_size, len(ctx.source), len(ctx.target))
        source = ctx.source.batches(size, ctx.generator("source"))
        target = ctx.target.batches(size, ctx.generator("target"))
        weights = self._pruned(model)
        model.train()
        stages = self._stages(
            model, weights, list(model.parameters()), lambda: self._loss(model, next(source), next(target))
        )
        release_strongest(model, guard, stages, partial(self._tune, model, weights, ctx))
        return model

    def _tune(self, model: nn.Module, weights: list[Tensor], ctx: Context, masks: list[Tensor], share: float) -> None:
        tune_masked(model, weights, masks, ctx, self.tune_steps, share * self.tune_lr, self.batch_size)

    def _loss(self, model: nn.Module, source: Batch, target: Batch) -> Tensor:
        (xs, noise), (xt, noise_t) = source, target
        fs, ft = both_features(model, xs, xt)
        lost = (head(model)(ft) - noise_t).square().flatten(1).mean(dim=1).clamp_max(self.bound).mean()
        kept: Tensor = F.mse_loss(head(model)(fs), noise) - self.alpha * lost * self._apart(fs, ft)
        return kept

    def _apart(self, fs: Tensor, ft: Tensor) -> Tensor | float:
        """Return how far the features of the two domains lie apart, at most 1."""
        if self.discrepancy == "none":
            return 1.0
        a, b = (F.normalize(x, dim=1).flatten(1) for x in (fs, ft))
        return mmd(a, b).clamp_max(1)
