"""JailNTL: target images are disguised as source images before the protected model, a black box, gets to see them.

Paper: Xiang et al., CVPR 2025, "Jailbreaking the Non-Transferable Barrier via Test-Time Data Disguising". A generator G
and a critic D of patches play LSGAN from target to source, and G leaves source images as they are. Model guidance
draws what the black box f says of disguised images to what it says of source images, in mean entropy H and in entropy B
of the mean prediction: guidance * (entropy * |H_T - H_S| + balance * |B_T - B_S|). It costs questions: one for each
source image, and `directions` + 1 for each disguised image and step; when fewer than a step takes are left of
`queries`, it stops. Later predictions ask once an image and are not counted.

Deviations: the public code's finite difference is no gradient, but minus the mean loss over epsilon at every pixel,
clipped (`estimate="public"`, with `guidance` 1e-4); here the slopes along random directions weigh these directions. B
is that of soft predictions, in nats, not of predicted classes. G adds what a few convolutions with instance norm say
to the image, where CycleGANs have nine residual blocks; `content` * L1 to the input stands for the generator back and
its cycles. No crops, flips and pool of old images; G and D share a step of Adam. They own 1% of the source images.
"""

from collections.abc import Generator
from functools import partial
from itertools import islice
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ntbench.method import (
    Access,
    Attack,
    Context,
    Field,
    Schedule,
    create_optimizer,
    create_schedule,
    descend,
    register,
)

from ._adaptation import marginal_entropy, mean_entropy
from ._disguise import Critic, Disguise, game
from ._questions import Questions, pseudo_gradient, zeroth_order
from ._stepwise import indexed_batches

BETAS = (0.5, 0.999)


@register
class JailNTL(Attack):
    """Disguise target images and ask the black box."""

    name = "jailntl"
    paper = "https://arxiv.org/abs/2503.17198"
    access: ClassVar[Access] = Access(source=True, target="unlabelled", weights=False)
    at_horizon_alone = True

    width: int = Field(default=32, ge=1)
    depth: int = Field(default=2, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    schedule: Schedule = "linear"
    batch_size: int = Field(default=32, ge=1)
    adversarial: float = Field(default=1.0, ge=0)
    identity: float = Field(default=5.0, ge=0)
    content: float = Field(default=1.0, ge=0)
    guidance: float = Field(default=1.0, ge=0)
    entropy: float = Field(default=1.0, ge=0)
    balance: float = Field(default=2.0, ge=0)
    estimate: Literal["zeroth_order", "public"] = "zeroth_order"
    directions: int = Field(default=8, ge=1)
    epsilon: float = Field(default=1e-2, gt=0)
    queries: int = Field(default=100_000, ge=1)

    def attack(self, model: nn.Module, ctx: Context) -> Generator[nn.Module, None, str]:
        """Yield the black box behind the disguise after every step, and return how much was asked."""
        assert ctx.target is not None and ctx.source is not None
        asked = Questions(model, self.queries)
        disguise = Disguise(self.width, self.depth, ctx.generator("disguise")).to(ctx.device)
        critic = Critic(self.width, ctx.generator("critic")).to(ctx.device)
        optimizer = create_optimizer([*disguise.parameters(), *critic.parameters()], "adam", self.lr, betas=BETAS)
        set_rate = create_schedule(optimizer, self.schedule, ctx.steps)
        targets, sources = (
            indexed_batches(data, self.batch_size, ctx.generator(name))
            for name, data in (("target", ctx.target), ("source", ctx.source))
        )
        real, noise = asked(ctx.source.x), ctx.generator("noise")
        disguised = nn.Sequential(disguise, model)
        for step, ((xt, _), (xs, own)) in enumerate(islice(zip(targets, sources, strict=True), ctx.steps), 1):
            made, kept = disguise(torch.cat([xt, xs])).split([len(xt), len(xs)])
            loss = self.identity * (kept - xs).abs().mean() + self.content * (made - xt).abs().mean()
            loss = loss + game(critic, made, xs, self.adversarial)
            if asked.affords(len(xt) * (self.directions + 1)):
                loss = loss + self.guidance * (made * self._push(asked, made.detach(), real[own], noise)).sum()
            descend(optimizer, loss, step)
            set_rate(step)
            yield disguised
        return f"{asked.count} questions"

    def _push(self, asked: Questions, made: Tensor, real: Tensor, noise: torch.Generator) -> Tensor:
        """Return the estimated gradient of the gaps at disguised images [b, 3, s, s]."""
        gaps = partial(output_gaps, real=real, entropy=self.entropy, balance=self.balance)
        if self.estimate == "public":
            return pseudo_gradient(lambda x: gaps(asked(x)), made, self.directions, self.epsilon, noise)
        answers = asked(made).requires_grad_()
        (wanted,) = torch.autograd.grad(gaps(answers), answers)
        here = (answers.detach() * wanted).sum(1)
        # What the attacker cannot differentiate is f alone; the gaps are its own function of the answers.
        along = partial(zeroth_order, lambda x: (asked(x) * wanted).sum(1), made, here)
        return along(self.directions, self.epsilon, noise)


def output_gaps(answers: Tensor, real: Tensor, entropy: float, balance: float) -> Tensor:
    """Return entropy * |H - H_real| + balance * |B - B_real| of logits [b, K], in nats (eqs. 10, 13).

    H is the mean entropy of the predictions and B the entropy of the mean prediction.
    """
    surer = mean_entropy(answers) - mean_entropy(real)
    broader = marginal_entropy(answers) - marginal_entropy(real)
    return entropy * surer.abs() + balance * broader.abs()
