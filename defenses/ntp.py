"""NTP: ADMM pruning to an encoder whose few weights serve the source and not the target.

Paper: Ding et al., ECCV 2024, "Non-transferable Pruning". W minimises
CE_S - alpha * min(CE_T, ceiling) + strength * B/W(f_T) + rho/2 * sum_l |W_l - Z_l + U_l|^p      (`fisher`), or
CE_S - alpha * min(CE_T, ceiling) * min(MMD(f_S, f_T), 1) + rho/2 * sum_l |W_l - Z_l + U_l|^p    (`mmd`),
then Z = projection(W + U) inside the mask, U = U + W - Z, and the mask is where Z is not zero. Features are normalised
over channels; CE_T is taken by a target head that was trained on the pretrained encoder and then frozen.

Deviations: B/W is a ratio of unbiased variances on target batches with as many samples of every class
(`ratio="balanced"`); that of the public code (`public`) grows with the noise of small batches and of many classes. p =
2 (`norm_power=1` is the public code's norm without the square); the projection keeps the exact top k of all layers on a
cubic schedule that ends at `ramp` of the iterations (`soft_threshold` is the public code's l1 / rho with its stop).
Batch norm is not pruned and the source head trains along (`batch_norm="pruned"`, `source_head="frozen"` as public).
Under batch norm each domain has statistics of its own, and the running ones are the source's; features are pooled;
gradients are clipped. Weights outside the mask are cleared after every step, as in the public code, and `rho` then
does next to nothing under `topk`; with `masking="end"` it alone draws them to zero. The public code reports source
accuracy after further source training of a model that it does not release; here that training, inside the mask and of
all other parameters, is part of what is released. Where the last mask keeps less of the source than `tolerance` allows
on validation data, an earlier one of the schedule is released.

The public code's form, under the names used here: projection="soft_threshold", norm_power=1, rho=5e-3, l1=1e-4,
ratio="public", batch_norm="pruned", source_head="frozen", tune_steps=0, tolerance=1.

digits to digits_m, test accuracy with the mask kept, best of three attacks of 80 steps on 120 and 600 samples, at a
drop within 1.5 points: balanced .54 and .70 at a sparsity of .98; public ratio on batches of 32 .73 and .86 at the .86
that it backs off to; masking="end" .73 and .86 with rho=5e-3 (.86), .67 and .84 with rho=.5 (.94).
"""

from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import Context, Field, head, register

from ._admm import AdmmPruning
from ._domains import Batch, both_features
from ._guard import TOLERANCE, SourceGuard
from ._heads import fitted_head
from ._mmd import mmd
from ._pruning import REMEDY, release_strongest, tune_masked


@register
class NTP(AdmmPruning):
    """Prune by ADMM against the target, then tune on source inside the mask."""

    name = "ntp"
    version = 2
    paper = "https://arxiv.org/abs/2410.08015"
    needs_target = True
    needs_target_labels = True
    masked = True
    quick = {"iterations": 5, "steps": 8}

    regulariser: Literal["fisher", "mmd"] = "fisher"
    source_head: Literal["trained", "frozen"] = "trained"
    alpha: float = Field(default=0.1, ge=0)
    ceiling: float = Field(default=10.0, gt=0)
    head_steps: int = Field(default=60, ge=1)
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
        target = self._target_batches(ctx, plain=size if self.regulariser == "mmd" else 0)
        target_head = fitted_head(model, ctx, self.head_steps, self.lr, self.batch_size)
        own = set(head(model).parameters()) if self.source_head == "frozen" else set()
        weights, trained = self._pruned(model), [p for p in model.parameters() if p not in own]
        model.train()
        stages = self._stages(
            model, weights, trained, lambda: self._loss(model, target_head, next(source), next(target))
        )
        release_strongest(model, guard, stages, partial(self._tune, model, weights, ctx))
        return model

    def _tune(self, model: nn.Module, weights: list[Tensor], ctx: Context, masks: list[Tensor], share: float) -> None:
        tune_masked(model, weights, masks, ctx, self.tune_steps, share * self.tune_lr, self.batch_size)

    def _loss(self, model: nn.Module, target_head: nn.Linear, source: Batch, target: Batch) -> Tensor:
        (xs, ys), (xt, yt) = source, target
        fs, ft = both_features(model, xs, xt)
        kept = F.cross_entropy(head(model)(fs), ys)
        leak = self.alpha * F.cross_entropy(target_head(ft), yt).clamp_max(self.ceiling)
        if self.regulariser == "mmd":
            return kept - leak * mmd(F.normalize(fs, dim=1), F.normalize(ft, dim=1)).clamp_max(1)
        return kept - leak + self.strength * self._scatter(ft, yt)
