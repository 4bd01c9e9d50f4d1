"""Sharpness-aware fine-tuning: every step goes down the gradient at the worst point nearby.

Paper: Foret et al., ICLR 2021, "Sharpness-Aware Minimization for Efficiently Improving Generalization", eq. 2 and
algorithm 1: g = grad L(w + rho grad L(w) / ||grad L(w)||), and the optimizer takes g at w; `adaptive` is ASAM (Kwon et
al. 2021, eq. 6). A step shows its batch to the network twice, and costs as much.

Deviations: the two gradients are of one batch on one device, not averages over devices that each climb on their own.
Running statistics of batch norm are those of w; the pass at the point above leaves them alone.
"""

from dataclasses import replace

from torch import Tensor, nn
from torch.func import functional_call

from ntbench.method import Context, Field, Fit, Objective, register

from ._sam import above
from ._tuning import Tuning


@register
class Sam(Tuning):
    """Train on the labelled target samples towards flat ground."""

    name = "sam"
    paper = "https://arxiv.org/abs/2010.01412"
    objectives = ("classification", "denoising")

    rho: float = Field(default=0.05, ge=0)
    adaptive: bool = False

    def fit_of(self, model: nn.Module, ctx: Context) -> Fit:
        """Return the training of the model."""
        fit, climber = self.tuning(model, ctx), Climber(model, ctx.objective, self.rho, self.adaptive)
        return replace(fit, model=climber, loss=climber.loss, outcome=lambda: model)


class Climber(nn.Module):
    """A model that remembers the batch on which its loss is asked for, since that loss needs a second pass."""

    def __init__(self, model: nn.Module, objective: Objective, rho: float, adaptive: bool) -> None:
        """Take a model, which stays the same object."""
        super().__init__()
        self.model, self.objective, self.rho, self.adaptive = model, objective, rho, adaptive

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of the model."""
        self.batch = x
        outputs: Tensor = self.model(x)
        return outputs

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss at the point above on the batch that gave these outputs."""
        higher = above(self, self.objective.loss(outputs, targets), self.rho, self.adaptive)
        buffers = {name: buffer.clone() for name, buffer in self.named_buffers()}
        return self.objective.loss(functional_call(self, higher | buffers, self.batch), targets)
