"""AdaContrast: pseudo-labels voted by neighbours on a weak view, learnt on a strong one, with contrast between classes.

Paper: Chen et al., CVPR 2022, "Contrastive Test-Time Adaptation". A momentum encoder keeps features and predictions of
all target images; the pseudo-label of an image is the arg max of the mean prediction of the `neighbours` nearest to its
weak view. L = CE(strong query, pseudo-label) + `contrast` InfoNCE(query, key), whose negatives are queued keys with
other pseudo-labels, - `diversity` times the entropy of the mean prediction of the queries.

Deviations: 3 neighbours and a diversity of 3, since the paper's 10 and 1 hardly adapt defended models in short runs,
a momentum of 0.99 (paper: 0.999) and a learning rate for them; the queue starts empty and not from noise, holds at most
one key for each image, and its labels are the latest ones; the bank has one row for each image; weak views are moved by
a pixel or two, images are mirrored only with `flip`, since digits do not bear it, crops keep half of the area or more
(paper: a fifth), hues stay. `views="reference"` is the public code's shift of the views, by which plain, weak and
strong images take the places of weak, query and key, and the cross-entropy never sees a strong view.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import Access, Context, Field, create_schedule, register

from ._adaptation import create_sgd, encode, first_of_each, marginal_entropy
from ._stepwise import Step, Stepwise, descent
from ._twin import SlowTwin, info_nce
from ._views import strong, weak


@register
class AdaContrast(Stepwise):
    """Follow the votes of neighbours, and push apart what they tell apart."""

    name = "adacontrast"
    paper = "https://arxiv.org/abs/2204.10377"
    access = Access(target="unlabelled")
    at_horizon_alone = True

    views: Literal["paper", "reference"] = "paper"
    flip: bool = False
    neighbours: int = Field(default=3, ge=1)
    queue: int = Field(default=16384, ge=1)
    momentum: float = Field(default=0.99, ge=0, lt=1)
    temperature: float = Field(default=0.07, gt=0)
    contrast: float = Field(default=1.0, ge=0)
    diversity: float = Field(default=3.0, ge=0)
    lr: float = Field(default=2e-3, gt=0)
    backbone: float = Field(default=0.1, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)

    def steps_of(self, model: nn.Module, ctx: Context) -> Step:
        """Look at all images and return the step."""
        assert ctx.target is not None
        twin = SlowTwin(model, ctx.target.x, self.momentum, self.queue)
        labels, chance = torch.full_like(ctx.target.y, -1), ctx.generator("views")

        def loss(taken: int, x: Tensor, own: Tensor) -> Tensor:
            plain, query, key = self._views(x, chance)
            found = twin.refine(model, plain, own, self.neighbours).argmax(1)
            first = first_of_each(own)
            labels[own[first]] = found[first]
            keys = twin.follow(model, key)
            excluded = found[:, None] == labels[twin.owners]
            value = self._loss(*encode(model, query), found, twin, keys, excluded)
            twin.enqueue(keys, own)
            return value

        optimizer = create_sgd(model, self.lr, self.backbone, self.weight_decay)
        model.train()
        return descent(optimizer, loss, create_schedule(optimizer, "cosine", ctx.steps))

    def _views(self, x: Tensor, chance: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return what pseudo-labels are voted on, the query and the key."""
        if self.views == "reference":
            return x, weak(x, chance, self.flip), strong(x, chance, self.flip)
        return weak(x, chance, self.flip), strong(x, chance, self.flip), strong(x, chance, self.flip)

    def _loss(
        self, inputs: Tensor, logits: Tensor, labels: Tensor, twin: SlowTwin, keys: Tensor, excluded: Tensor
    ) -> Tensor:
        apart = info_nce(F.normalize(inputs), keys, twin.keys, excluded, self.temperature)
        balance = marginal_entropy(logits)
        return F.cross_entropy(logits, labels) + self.contrast * apart - self.diversity * balance
