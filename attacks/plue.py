"""PLUE: pseudo-labels of neighbours, weighed by their certainty and taught by what an image is not.

Paper: Litrico et al., CVPR 2023, "Guiding Pseudo-labels with Uncertainty Estimation for Source-free Unsupervised
Domain Adaptation". The mean prediction p of the `neighbours` nearest to the weak view of an image, in a bank of what
the model said of every image when it last saw it, gives its pseudo-label and the weight w = exp(-H(p) / log K). L =
mean of w (-log(1 - p_c(query))) on a strong view, for a random class c that is not the label, + `contrast`
InfoNCE(query, key of a momentum encoder) without negatives that have shared a pseudo-label with the image at one of
their last `history` visits, - `diversity` times the entropy of the mean prediction.

Deviations: the queue starts empty and not from noise, and holds at most one key for each image; the bank has one row
for each image; visits of before the start exclude nothing; only the query, not the weak view, is balanced, so that a
step costs one view with gradients; weak views are moved by a pixel or two, images are mirrored only with `flip`, since
digits do not bear it, crops keep half of the area or more, hues stay; the momentum is 0.99, for runs of hundreds of
steps (paper: 0.999). `reference_neighbours` is the public code's slip: the switch of the refinement arrives as the
number of neighbours, which is then 1.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import Access, Context, Field, create_optimizer, register

from ._adaptation import encode, first_of_each, marginal_entropy
from ._stepwise import Step, Stepwise, descent
from ._twin import SlowTwin, info_nce
from ._views import strong, weak


@register
class Plue(Stepwise):
    """Learn from certain pseudo-labels which classes an image does not have."""

    name = "plue"
    paper = "https://arxiv.org/abs/2303.03770"
    access = Access(target="unlabelled")
    at_horizon_alone = True

    reference_neighbours: bool = False
    flip: bool = False
    neighbours: int = Field(default=10, ge=1)
    history: int = Field(default=5, ge=1)
    queue: int = Field(default=16384, ge=1)
    momentum: float = Field(default=0.99, ge=0, lt=1)
    temperature: float = Field(default=0.07, gt=0)
    contrast: float = Field(default=1.0, ge=0)
    diversity: float = Field(default=1.0, ge=0)
    lr: float = Field(default=5e-3, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)

    def steps_of(self, model: nn.Module, ctx: Context) -> Step:
        """Look at all images and return the step."""
        assert ctx.target is not None
        twin = SlowTwin(model, ctx.target.x, self.momentum, self.queue)
        labels = ctx.target.y.new_full((len(ctx.target), self.history), -1)
        views, chance = ctx.generator("views"), ctx.generator("complements")
        count = 1 if self.reference_neighbours else self.neighbours

        def loss(taken: int, x: Tensor, own: Tensor) -> Tensor:
            found = twin.refine(model, weak(x, views, self.flip), own, count, slow=False)
            remember(labels, own, found.argmax(1))
            inputs, logits = encode(model, strong(x, views, self.flip))
            keys = twin.follow(model, strong(x, views, self.flip))
            excluded = shared(labels[own], labels[twin.owners])
            apart = info_nce(F.normalize(inputs), keys, twin.keys, excluded, self.temperature)
            twin.enqueue(keys, own)
            taught = (certainty(found) * negative_learning(logits, found.argmax(1), chance)).mean()
            return taught + self.contrast * apart - self.diversity * marginal_entropy(logits)

        model.train()
        return descent(create_optimizer(model.parameters(), "sgd", self.lr, self.weight_decay), loss)


def certainty(probabilities: Tensor) -> Tensor:
    """Return exp(-H(p) / log K) for predictions [b, K]: 1 where they are sure, 1 / e where they are uniform."""
    entropy: Tensor = torch.special.entr(probabilities).sum(1)
    return (-entropy / math.log(probabilities.shape[1])).exp()


def negative_learning(logits: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return -log(1 - p_c) [b] for a random class c that is not the label, from logits [b, K]."""
    classes = logits.shape[1]
    shift = torch.randint(1, classes, labels.shape, generator=generator).to(labels.device)
    complement = ((labels + shift) % classes)[:, None]
    others = logits.scatter(1, complement, -torch.inf).logsumexp(1)
    return logits.logsumexp(1) - others


def remember(labels: Tensor, own: Tensor, found: Tensor) -> None:
    """Put what was found [b] of the images at positions `own` [b] in front of their labels [n, history], in place."""
    first = first_of_each(own)
    labels[own[first]] = torch.cat([found[first, None], labels[own[first], :-1]], 1)


def shared(labels: Tensor, others: Tensor) -> Tensor:
    """Return which pairs of images had one label at one of their latest visits, [b, q]; -1 is the label of none."""
    return ((labels[:, None] == others) & (labels[:, None] >= 0)).any(2)
