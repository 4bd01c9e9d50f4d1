"""Tent: entropy minimisation over the scales and shifts of normalisation layers, on unlabelled target images.

Paper: Wang et al., ICLR 2021, "Tent: Fully Test-Time Adaptation by Entropy Minimization". Batch norm normalises with
the statistics of the target batch, and gamma and beta descend on the batch mean of H(p) = -sum_k p_k log p_k.

Deviations: training goes on for as many passes over the target images as the budget allows, not one; a released model
is weights that predict one by one, so batch norm's running statistics follow the target batches and predictions use
them, where the public code keeps batch statistics for good; all else stays in eval mode (public code: dropout is on);
batches of 32 with Adam at 1e-3, the public CIFAR setting but for its batches of 200; without batch norm the affine
parameters of layer norms and group norms are trained, as later work does.
"""

from collections.abc import Iterator
from itertools import islice

from torch import nn

from ntbench.method import Access, Attack, Context, Field, Optimizer, create_optimizer, descend, register

from ._adaptation import batch_statistics, check_label_space, indexed_batches, mean_entropy


@register
class Tent(Attack):
    """Train the affine parameters of the norms towards confident predictions."""

    name = "tent"
    paper = "https://arxiv.org/abs/2006.10726"
    access = Access(target="unlabelled")

    optimizer: Optimizer = "adam"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    batch_size: int = Field(default=32, ge=1)

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        """Yield the model after every step; ValueError without affine norms and where class counts differ."""
        check_label_space(model, ctx)
        assert ctx.target is not None
        trained = _affine(model, list(batch_statistics(model)))
        model.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
        optimizer = create_optimizer(trained, self.optimizer, self.lr, self.weight_decay)
        batches = indexed_batches(ctx.target, ctx, self.batch_size, ctx.generator("batches"))
        for step, (x, _) in enumerate(islice(batches, ctx.budget.steps), start=1):
            descend(optimizer, mean_entropy(model(x)), step)
            yield model


def _affine(model: nn.Module, batch_norms: list[nn.Module]) -> list[nn.Parameter]:
    """Return the scales and shifts of the batch norms, or where there are none of the layer norms and group norms."""
    norms = batch_norms or [m for m in model.modules() if isinstance(m, nn.LayerNorm | nn.GroupNorm)]
    found = [parameter for norm in norms for parameter in norm.parameters(recurse=False)]
    if not found:
        raise ValueError(f"{type(model).__name__} has no affine norm; tent trains nothing else")
    return found
