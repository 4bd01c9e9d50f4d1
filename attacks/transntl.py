"""TransNTL: repairs a model with few source images: perturbed they are to be judged as clean, on flat ground.

Paper: Hong et al., CVPR 2024, "Your Transferability Barrier is Fragile". Of images x with labels y and n ~ N(0, std^2)
the groups are x + n, (1 + n) x with the same n, and Gaussian blur of kernel 5. L = CE(f(x), y) + w sum_g q_g L_g, with
L_g = KL(softmax(f(x) / T) || softmax(f(x_g))), through which no gradient flows into f(x); group weights follow
q_g <- q_g exp(eta L_g), normalised to sum 1 (group DRO). Adaptive SAM climbs by rho before Adam takes the gradient.

Deviations: the group weights move once a step; the public code moves them in both passes of SAM (`updates="twice"`).
KL is in nats; there it is averaged over classes too (`scale="klmean"`). Clean and perturbed images pass the network as
one batch, of which batch norm takes joint statistics; there one after the other. A step lets four views of a batch
through the network twice, and costs as much. The rate is that of short runs, thirty times theirs and falling, and w is
1, not 0.1; std is in units of images in [-1, 1].
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

from ntbench.method import Access, Context, Field, Optimizer, Schedule, create_optimizer, create_schedule, register

from ._sam import above
from ._stepwise import Step, Stepwise, descent

VIEWS = 4


@register
class TransNTL(Stepwise):
    """Distil clean predictions into perturbed ones on source images."""

    name = "transntl"
    paper = "https://github.com/tmllab/2024_CVPR_TransNTL"
    access: ClassVar[Access] = Access(source=True, target=None)
    at_horizon_alone = True

    std: float = Field(default=0.2, gt=0)
    weight: float = Field(default=1.0, ge=0)
    temperature: float = Field(default=1.0, gt=0)
    eta: float = Field(default=0.01, ge=0)
    rho: float = Field(default=0.5, ge=0)
    updates: Literal["once", "twice"] = "once"
    scale: Literal["nats", "klmean"] = "nats"
    optimizer: Optimizer = "adam"
    lr: float = Field(default=3e-3, gt=0)
    schedule: Schedule = "linear"
    weight_decay: float = Field(default=1e-4, ge=0)

    def steps_of(self, model: nn.Module, ctx: Context) -> Step:
        """Return the step, up and down again."""
        assert ctx.source is not None
        labels, noise = ctx.source.y, ctx.generator("noise")
        shares = torch.full([VIEWS - 1], 1 / (VIEWS - 1), device=ctx.device)

        def loss(taken: int, x: Tensor, own: Tensor) -> Tensor:
            images, y = torch.cat([x, *perturbed(x, self.std, noise)]), labels[own]
            here, moved = self._loss(model, images, y, shares, self.eta)
            higher = partial(functional_call, model, above(model, here, self.rho))
            value, moved = self._loss(higher, images, y, moved, self.eta if self.updates == "twice" else 0.0)
            shares.copy_(moved)
            return value

        optimizer = create_optimizer(model.parameters(), self.optimizer, self.lr, self.weight_decay)
        model.train()
        return descent(optimizer, loss, create_schedule(optimizer, self.schedule, ctx.steps))

    def _loss(
        self, predict: Callable[[Tensor], Tensor], images: Tensor, y: Tensor, shares: Tensor, eta: float
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of clean and perturbed images, [4 b, 3, s, s], and the group weights that it is made with."""
        logits = predict(images)
        clean, *groups = logits.chunk(VIEWS)
        scale = 1 if self.scale == "nats" else logits.shape[1]
        losses = torch.stack([self_distillation(clean, group, self.temperature) for group in groups]) / scale
        shares = reweighted(shares, losses.detach(), eta)
        return F.cross_entropy(clean, y) + self.weight * shares @ losses, shares


def perturbed(x: Tensor, std: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return x + n, (1 + n) x and blurred x, with one n ~ N(0, std^2) for both."""
    noise = std * torch.randn(x.shape, generator=generator).to(x.device)
    return x + noise, (1 + noise) * x, gaussian_blur(x, [5, 5])


def self_distillation(clean: Tensor, group: Tensor, temperature: float) -> Tensor:
    """Return KL(softmax(clean / T) || softmax(group)) in nats, the batch mean over logits [b, K]; clean is fixed."""
    goal = clean.detach().div(temperature).log_softmax(1)
    return F.kl_div(group.log_softmax(1), goal, reduction="batchmean", log_target=True)


def reweighted(shares: Tensor, losses: Tensor, eta: float) -> Tensor:
    """Return q_g exp(eta L_g) / sum_h q_h exp(eta L_h) of weights q [G] and losses [G]."""
    return (shares.log() + eta * losses).softmax(0)
