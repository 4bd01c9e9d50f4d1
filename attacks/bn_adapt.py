"""Batch-norm adaptation: running statistics are estimated anew on unlabelled target images; no weight is trained.

Paper: Schneider et al., NeurIPS 2020, "Improving robustness against common corruptions by covariate shift adaptation",
without a share of the source statistics (N = 0): mu = mean_b mu_b and sigma^2 = mean_b sigma_b^2 over the batches b
seen so far, each normalised by its own statistics on its way through the network.

Deviations: variances are averages of unbiased variances within batches, as torch estimates them; the paper's setting of
statistics from the test batch itself is left out, since a released model predicts one by one.
"""

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ntbench.method import Access, Attack, Context, Field, register

from ._adaptation import batch_statistics, check_label_space, indexed_batches


@register
class BatchNormAdaptation(Attack):
    """Average batch statistics of the target in forward passes alone."""

    name = "bn_adapt"
    paper = "https://arxiv.org/abs/2006.16971"
    access = Access(target="unlabelled")

    batch_size: int = Field(default=32, ge=1)

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        """Yield the model after every batch, with no optimizer step; ValueError without batch norm."""
        check_label_space(model, ctx)
        assert ctx.target is not None
        layers = batch_statistics(model)
        if not layers:
            raise ValueError(f"{type(model).__name__} has no batch norm; bn_adapt re-estimates nothing else")
        batches = indexed_batches(ctx.target, ctx, self.batch_size, ctx.generator("batches"))
        for count, (x, _) in enumerate(islice(batches, ctx.budget.steps), start=1):
            _average_in(model, layers, x, 1 / count)
            yield model


@torch.no_grad()
def _average_in(model: nn.Module, layers: list[_BatchNorm], x: Tensor, share: float) -> None:
    """Give the statistics of one batch a share in the running ones."""
    usual = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = share
    model(x)
    for layer, momentum in zip(layers, usual, strict=True):
        layer.momentum = momentum
