"""LoRA: the encoder's weights stay, and low-rank updates beside them learn the target together with the head.

Paper: Hu et al., ICLR 2022, eq. 3: h = W x + (alpha / r) B A x, with A Gaussian and B zero at the start; alpha / r is
`scale`. A k x k convolution gets one to r channels and a 1 x 1 convolution after it. What is handed over is the plain
network with merged weights.

Deviations: the paper adapts two attention projections of language models, here every linear and convolution layer below
the head gets an update, and the head trains freely; A has variance 1 / inputs, which the paper leaves open; no dropout.
Biases and norms are frozen, running statistics of batch norm move. The update of a grouped convolution is a low-rank
change of its weight as a matrix [out, inputs of a group x k x k] and no pair of convolutions.
"""

from torch import nn

from ntbench.method import Context, Field, Fit, Optimizer, register

from ._lora import LowRankModel
from ._tuning import Tuning, renew_misfit


@register
class Lora(Tuning):
    """Train low-rank updates and the head."""

    name = "lora"
    paper = "https://arxiv.org/abs/2106.09685"
    objectives = ("classification", "denoising")

    optimizer: Optimizer = "adam"
    lr: float = Field(default=3e-3, gt=0)
    rank: int = Field(default=4, ge=1)
    scale: float = Field(default=2.0, gt=0)

    def fit_of(self, model: nn.Module, ctx: Context) -> Fit:
        """Return the training of the updates, which hands over the merged model."""
        renew_misfit(model, ctx)
        adapted = LowRankModel(model, self.rank, self.scale, ctx.generator("low rank"))
        return self.tuning(adapted, ctx, parameters=adapted.trained, outcome=adapted.merge)
