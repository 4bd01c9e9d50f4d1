"""NTL without a target: a generator draws neighbours of the source, and NTL pushes those away instead.

Paper: Wang et al., ICLR 2022, "Non-Transferable Learning" (source-only). A generator G(z, y) and a discriminator D with
a realness (least squares) and a class output are trained on source. Then, for every round r and direction d, a copy of
G goes down CE(D_class(G), y) / 2 - min(MMD(D_f(G), D_f(x)) - MMD at its start, reach * (r + 1)); D and the first d / 4
of the channels of G's hidden layers stand still. Blurred images of all copies, with the labels that they were drawn
for, are the target of NTL's loss CE_S - min(1, alpha * CE_T) * min(1, beta * MMD(f_S, f_T)).

Deviations: the public code gives most images of two of its sets a wrong label, since their file names ignore d, and it
freezes transposed convolutions along their input channels; here a label never leaves its image, and output channels are
frozen. One step teaches G realness and class together; D learns classes from real images alone and has no dropout.
Distances count from where a copy of G starts, since the MMD of two batches of one domain is not 0 but as large as the
public bounds. CE is CE / K as in the public NTL loss (`scale="nats"`: CE). The blur spans the public share of the
image's side, which is nothing at 16 pixels; images stay floats. Widths, rates and steps are for small images. As in
`ntl`, features are the classifier's input, gradients are clipped, each domain has batch statistics of its own, and a
lost source is repaired. Where less than `carried` of what G draws is classified by the source model as it was asked
for, nothing is released: G then has not learnt the domain. The last weights within `tolerance` of the source, on
validation data, are released.
"""

import torch
from torch import nn

from ntbench.method import Context, Defense, Field, Split, UnusableError, accuracy, create_optimizer, head, register

from ._bounded import Batches, Scale, bounded_loss
from ._domains import descend_both, pairs, repairing, watched
from ._generator import Discriminator, Generator, initialise
from ._guard import TOLERANCE, SourceGuard
from ._neighbours import Pair, draw, learn, neighbours

CHECKS = 10
DRAWN = 256


@register
class NTLSourceOnly(Defense):
    """Make a target out of the source, then train with the bounded non-transferability loss."""

    name = "ntl_source_only"
    version = 2
    paper = "https://arxiv.org/abs/2106.06916"
    space = {"carried": None}
    quick = {"carried": 0.0, "gan_steps": 30, "rounds": 1, "augment_steps": 3, "images_per_direction": 32, "steps": 60}

    latent: int = Field(default=64, ge=1)
    width: int = Field(default=16, ge=4, multiple_of=4)
    gan_steps: int = Field(default=400, ge=1)
    gan_lr: float = Field(default=1e-3, gt=0)
    gan_batch_size: int = Field(default=64, ge=2)
    carried: float = Field(default=0.5, ge=0, le=1)
    rounds: int = Field(default=4, ge=1)
    reach: float = Field(default=0.1, gt=0)
    augment_steps: int = Field(default=15, ge=1)
    images_per_direction: int = Field(default=128, ge=1)
    alpha: float = Field(default=0.1, gt=0)
    beta: float = Field(default=1.0, gt=0)
    scale: Scale = "klmean"
    batches: Batches = "own"
    steps: int = Field(default=250, ge=1)
    lr: float = Field(default=5e-4, gt=0)
    batch_size: int = Field(default=32, ge=2)
    clip: float = Field(default=5.0, gt=0)
    repair_steps: int = Field(default=24, ge=0)
    tolerance: float = Field(default=TOLERANCE, ge=0, le=1)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the last model within tolerance on the way down NTL's loss against generated images."""
        assert ctx.source is not None
        guard = SourceGuard(model, ctx, self.tolerance)
        made = self._neighbourhood(model, ctx)
        optimizer = create_optimizer(model.parameters(), "adam", self.lr)
        model.train()
        training = descend_both(
            pairs(ctx.source, made, self.batch_size, ctx),
            lambda source, target: bounded_loss(
                model, lambda ft, _: head(model)(ft), source, target, self.alpha, self.beta, self.scale, self.batches
            ),
            optimizer,
            self.steps,
            self.clip,
        )
        look = repairing(guard, model, ctx, self.lr, self.batch_size, self.repair_steps)
        watched(guard, training, self.steps, CHECKS, look)
        return model

    def _neighbourhood(self, model: nn.Module, ctx: Context) -> Split:
        """Return generated images, each with the label that it was drawn for; UnusableError where not carried."""
        assert ctx.source is not None
        classes = head(model).out_features
        size, noise = ctx.source.x.shape[-1], ctx.generator("noise")
        made, judge = Generator(classes, self.latent, size, self.width), Discriminator(classes, size, self.width)
        for net in (made, judge):
            initialise(net, noise)
            net.to(memory_format=torch.channels_last).to(ctx.device)
        pair = Pair(made, judge, noise)
        batches = ctx.source.batches(self.gan_batch_size, ctx.generator("gan"))
        learn(pair, batches, self.gan_steps, self.gan_lr)
        self._check(model, pair, classes)
        return neighbours(
            pair, batches, self.rounds, self.reach, self.augment_steps, self.gan_lr, self.images_per_direction
        )

    def _check(self, model: nn.Module, pair: Pair, classes: int) -> None:
        """Raise UnusableError where the source model sees other labels in drawn images than they were drawn for."""
        labels = torch.arange(classes).repeat_interleave(-(-DRAWN // classes)).to(head(model).weight.device)
        carried = accuracy(model, draw(pair.made, labels, pair.noise))
        if carried < self.carried:
            raise UnusableError(
                f"of the images that the generator draws {carried:.2f} carry their label to the source model, where "
                f"chance is {1 / classes:.2f} and carried={self.carried:g} is asked for; train it longer "
                f"(gan_steps={self.gan_steps}) or make it wider (width={self.width})"
            )
