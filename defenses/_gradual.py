"""Pruning step by step while training on source, by whatever score says which weights go first."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ntbench.method import Context, Defense, Field, Training, fit

from ._guard import TOLERANCE, SourceGuard
from ._pruning import REMEDY, Stage, clear, cubic_sparsity, encoder_weights, largest, release_strongest, tune_masked

Scores = Callable[[], Sequence[Tensor]]
"""Returns a score for every weight; the smallest in magnitude go first."""


class GradualPruning(Defense):
    """What the controls of pruning share, so that they differ in their masks alone.

    Masks follow a cubic schedule over `iterations` of `steps` steps, which reaches `sparsity` at the share `ramp` of
    them; training inside the last mask follows. Where that loses the source, the last mask of the schedule that keeps
    it is released.
    """

    sparsity: float = Field(default=0.98, gt=0, lt=1)
    ramp: float = Field(default=0.6, gt=0, le=1)
    iterations: int = Field(default=20, ge=1)
    steps: int = Field(default=15, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    tune_steps: int = Field(default=120, ge=1)
    tune_lr: float = Field(default=5e-3, gt=0)
    batch_size: int = Field(default=32, ge=1)
    tolerance: float = Field(default=TOLERANCE, ge=0, le=1)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the pruned model."""
        guard = SourceGuard(model, ctx, self.tolerance, REMEDY)
        weights = encoder_weights(model)
        stages = list(self._stages(model, weights, self._scores(weights, ctx), ctx))
        release_strongest(
            model,
            guard,
            stages,
            lambda masks, share: tune_masked(
                model, weights, masks, ctx, self.tune_steps, share * self.tune_lr, self.batch_size
            ),
        )
        return model

    def _scores(self, weights: Sequence[Tensor], ctx: Context) -> Scores:
        raise NotImplementedError

    def _stages(self, model: nn.Module, weights: list[Tensor], scores: Scores, ctx: Context) -> Iterator[Stage]:
        assert ctx.source is not None
        masks = [torch.ones_like(w, dtype=torch.bool) for w in weights]
        reached = max(1, round(self.ramp * self.iterations))
        training = Training(lr=self.lr, steps=self.iterations * self.steps, batch_size=self.batch_size)
        batches = ctx.generator("prune")
        for step in fit(model, ctx.source, training, batches, after_step=lambda: clear(weights, masks)):
            if step % self.steps == 0:
                masks[:] = largest(scores(), cubic_sparsity(self.sparsity, step // self.steps, reached))
                yield Stage.of(model, masks)
