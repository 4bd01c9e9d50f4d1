"""Tent: entropy minimisation over the scales and shifts of normalisation layers, on unlabelled target images.

Paper: Wang et al., ICLR 2021, "Tent: Fully Test-Time Adaptation by Entropy Minimization". Batch norm normalises with
the statistics of the target batch, and gamma and beta descend on the batch mean of H(p) = -sum_k p_k log p_k.

Deviations: training goes on for as many passes over the target images as the budget allows, not one; a released model
is weights that predict one by one, so batch norm's running statistics follow the target batches and predictions use
them, where the public code keeps batch statistics for good; all else stays in eval mode (public code: dropout is on);
batches of 32 with Adam at 1e-3, the public CIFAR setting but for its batches of 200; without batch norm the affine
parameters of layer norms and group norms are trained, as later work does.
"""

from torch import nn

from ntbench.method import Access, Context, Field, Optimizer, create_optimizer, register

from ._adaptation import batch_norms, batch_statistics, mean_entropy
from ._stepwise import Step, Stepwise, descent


@register
class Tent(Stepwise):
    """Train the affine parameters of the norms towards confident predictions."""

    name = "tent"
    paper = "https://arxiv.org/abs/2006.10726"
    access = Access(target="unlabelled")

    optimizer: Optimizer = "adam"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)

    def unfit(self, model: nn.Module) -> str:
        """Return why the attack cannot work on an architecture, or an empty string."""
        return "" if scales_and_shifts(model) else f"{type(model).__name__} has no affine norm to train"

    def steps_of(self, model: nn.Module, ctx: Context) -> Step:
        """Let nothing but the scales and shifts train, and return the step."""
        trained = scales_and_shifts(model)
        batch_statistics(model.requires_grad_(False))
        for parameter in trained:
            parameter.requires_grad_(True)
        optimizer = create_optimizer(trained, self.optimizer, self.lr, self.weight_decay)
        return descent(optimizer, lambda taken, x, own: mean_entropy(model(x)))


def scales_and_shifts(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the batch norms, or where there are none of the layer norms and group norms."""
    others = [m for m in model.modules() if isinstance(m, nn.LayerNorm | nn.GroupNorm)]
    return [parameter for norm in batch_norms(model) or others for parameter in norm.parameters(recurse=False)]
