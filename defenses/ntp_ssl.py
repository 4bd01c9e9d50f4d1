"""NTP without source labels: ADMM pruning of a contrastive encoder, which keeps its loss on source images alone.

Paper: Ding et al., ECCV 2024, "Non-transferable Pruning", which prunes self-supervised encoders too. A fresh encoder is
pretrained as by `simclr`; then W minimises
NT-Xent(projector(f_S), views of one source image) + strength * B/W(f_T) + rho/2 * sum_l |W_l - Z_l + U_l|^p,
Z = projection(W + U) inside the mask, U = U + W - Z, and the mask is where Z is not zero. f_T is normalised over
channels; B/W is the between-class over the within-class scatter. Pruning reads target labels and no source labels.

Deviations: the public code first trains the encoder on source labels and then prunes it with the supervised loss; here
the contrastive loss takes the place of CE_S, a proposal of ours, and no CE_T is subtracted. Views of source and images
of target pass apart under batch norm; the projector trains along; training goes on inside the mask under the
contrastive loss; features are pooled; gradients are clipped; `ratio`, `topk` and `batch_norm` are those of `ntp`. At
the end a linear head is fitted on source labels while the encoder stands still. The pretrained model that is handed in
is thrown away: what source accuracy is held against, with `tolerance` on validation data, is that of a linear head on
the unprotected contrastive encoder, which is what `simclr` releases. Where the last mask of the schedule loses more, an
earlier one is released.
"""

import copy
from collections.abc import Iterator
from functools import partial
from itertools import chain

from torch import Tensor, nn

from ntbench.method import Context, Field, create_optimizer, create_schedule, descend, features, register

from ._admm import AdmmPruning
from ._domains import both_features
from ._guard import TOLERANCE, SourceGuard
from ._pruning import REMEDY, clear, release_strongest
from ._simclr import Contrastive, nt_xent


@register
class NTPSSL(AdmmPruning, Contrastive):
    """Pretrain without labels, prune by ADMM against the target, then fit a linear head."""

    name = "ntp_ssl"
    version = 2
    paper = "https://arxiv.org/abs/2410.08015"
    needs_target = True
    needs_target_labels = True
    masked = True
    quick = {"tolerance": 0.2, "pretrain_steps": 60, "iterations": 5, "steps": 8, "tune_steps": 40, "sparsity": 0.9}

    batch_size: int = Field(default=32, ge=2)
    tune_steps: int = Field(default=120, ge=1)
    tune_lr: float = Field(default=5e-3, gt=0)
    tune_batch_size: int = Field(default=64, ge=2)
    tolerance: float = Field(default=TOLERANCE, ge=0, le=1)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the pruned contrastive encoder with a head for the source."""
        assert ctx.target is not None
        projector = self._pretrained(model, ctx)
        self._probe(model, ctx)
        guard = SourceGuard(model, ctx, self.tolerance, REMEDY)
        views, target = self._views(ctx, self.batch_size, "admm"), self._target_batches(ctx)
        weights, trained = self._pruned(model), [*model.parameters(), *projector.parameters()]
        model.train()
        stages = self._stages(model, weights, trained, lambda: self._loss(model, projector, next(views), *next(target)))
        release_strongest(model, guard, stages, partial(self._tuned, model, projector, weights, ctx))
        return model

    def _tuned(
        self,
        model: nn.Module,
        projector: nn.Module,
        weights: list[Tensor],
        ctx: Context,
        masks: list[Tensor],
        share: float,
    ) -> None:
        """Train on inside the mask, with a copy of the projector, and fit the head again."""
        model.train()
        views = self._views(ctx, self.tune_batch_size, "tune")
        self._tune(model, copy.deepcopy(projector), weights, masks, views, share * self.tune_lr)
        self._probe(model, ctx)

    def _loss(self, model: nn.Module, projector: nn.Module, views: Tensor, xt: Tensor, yt: Tensor) -> Tensor:
        fs, ft = both_features(model, views, xt)
        return nt_xent(projector(fs), self.temperature) + self.strength * self._scatter(ft, yt)

    def _tune(
        self,
        model: nn.Module,
        projector: nn.Module,
        weights: list[Tensor],
        masks: list[Tensor],
        views: Iterator[Tensor],
        lr: float,
    ) -> None:
        """Train on under the contrastive loss alone, inside the mask."""
        clear(weights, masks)
        optimizer = create_optimizer(chain(model.parameters(), projector.parameters()), "adam", lr)
        set_rate = create_schedule(optimizer, "linear", self.tune_steps)
        for step in range(1, self.tune_steps + 1):
            descend(optimizer, nt_xent(projector(features(model, next(views))), self.temperature), step)
            clear(weights, masks)
            set_rate(step)
