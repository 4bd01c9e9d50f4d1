"""L2-SP: fine-tuning that is pulled back to its starting point, which the release is; a new head decays to zero.

Paper: Li, Grandvalet & Davoine, ICML 2018, "Explicit Inductive Bias for Transfer Learning with Convolutional
Networks", section 3: the loss is CE + strength / 2 ||w_S - w_S^0||^2 + head_decay / 2 ||w_N||^2 with w_S what the
release has too, w_S^0 its values there, and w_N the new head.

Deviations: w_S are all parameters that training starts from as released, biases and norms included, and the head too
where it is kept (`init="keep"`).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ntbench.method import Context, Field, Fit, register, reset_head

from ._tuning import Tuning, renew_misfit


@register
class L2SP(Tuning):
    """Train on the labelled target samples, close to the release."""

    name = "l2_sp"
    paper = "https://arxiv.org/abs/1802.01483"
    objectives = ("classification", "denoising")

    init: Literal["keep", "reinit"] = "reinit"
    strength: float = Field(default=0.1, ge=0)
    head_decay: float = Field(default=0.01, ge=0)

    def fit_of(self, model: nn.Module, ctx: Context) -> Fit:
        """Return the training of the model."""
        released = {p: p.detach().clone() for p in model.parameters()}
        if self.init == "reinit":
            reset_head(model, ctx.target_classes, ctx.generator("head"))
        renew_misfit(model, ctx)
        kept = [(p, released[p]) for p in model.parameters() if p in released]
        new = [p for p in model.parameters() if p not in released]

        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            away = squared([p - start for p, start in kept])
            return ctx.objective.loss(outputs, targets) + self.strength / 2 * away + self.head_decay / 2 * squared(new)

        return self.tuning(model, ctx, loss=loss)


def squared(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of all squares of some tensors, 0 of none."""
    return torch.stack([tensor.square().sum() for tensor in tensors]).sum() if tensors else torch.zeros(())
