"""Batch-norm adaptation: running statistics are estimated anew on unlabelled target images; no weight is trained.

Paper: Schneider et al., NeurIPS 2020, "Improving robustness against common corruptions by covariate shift adaptation",
without a share of the source statistics (N = 0): mu = mean_b mu_b and sigma^2 = mean_b sigma_b^2 over the batches b
seen so far, each normalised by its own statistics on its way through the network.

Deviations: variances are averages of unbiased variances within batches, as torch estimates them; the paper's setting of
statistics from the test batch itself is left out, since a released model predicts one by one.
"""

import torch
from torch import Tensor, nn

from ntbench.method import Access, Context, register

from ._adaptation import batch_statistics, without_batch_norm
from ._stepwise import Step, Stepwise


@register
class BatchNormAdaptation(Stepwise):
    """Average batch statistics of the target in forward passes alone."""

    name = "bn_adapt"
    paper = "https://arxiv.org/abs/2006.16971"
    access = Access(target="unlabelled")

    def unfit(self, model: nn.Module) -> str:
        """Return why the attack cannot work on an architecture, or an empty string."""
        return without_batch_norm(model)

    def steps_of(self, model: nn.Module, ctx: Context) -> Step:
        """Return the step, which gives a batch its share in the running statistics and uses no optimizer."""
        layers = batch_statistics(model)
        usual = [layer.momentum for layer in layers]

        @torch.no_grad()
        def step(taken: int, x: Tensor, own: Tensor) -> None:
            for layer in layers:
                layer.momentum = 1 / (taken + 1)
            model(x)
            for layer, momentum in zip(layers, usual, strict=True):
                layer.momentum = momentum

        return step
