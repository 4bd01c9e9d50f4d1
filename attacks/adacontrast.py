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

from collections.abc import Iterator
from itertools import islice
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import Access, Attack, Context, Field, create_schedule, descend, register

from ._adaptation import (
    SlowTwin,
    check_label_space,
    create_sgd,
    encode,
    first_of_each,
    indexed_batches,
    info_nce,
    marginal_entropy,
)
from ._views import strong, weak


@register
class AdaContrast(Attack):
    """Follow the votes of neighbours, and push apart what they tell apart."""

    name = "adacontrast"
    paper = "https://arxiv.org/abs/2204.10377"
    access = Access(target="unlabelled")

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
    batch_size: int = Field(default=32, ge=1)

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        """Yield the model after every step; ValueError where class counts differ."""
        assert ctx.target is not None
        check_label_space(model, ctx)
        optimizer = create_sgd(model, self.lr, self.backbone, self.weight_decay)
        set_rate = create_schedule(optimizer, "cosine", ctx.budget.steps)
        batches = indexed_batches(ctx.target, ctx, self.batch_size, ctx.generator("batches"))
        twin = SlowTwin(model, ctx.target.x, self.momentum, self.queue)
        labels = torch.full_like(ctx.target.y, -1)
        chance = ctx.generator("views")
        model.train()
        for step, (x, own) in enumerate(islice(batches, ctx.budget.steps), start=1):
            plain, query, key = self._views(x, chance)
            found = twin.refine(model, plain, own, self.neighbours).argmax(1)
            first = first_of_each(own)
            labels[own[first]] = found[first]
            keys = twin.follow(model, key)
            excluded = found[:, None] == labels[twin.owners]
            descend(optimizer, self._loss(*encode(model, query), found, twin, keys, excluded), step)
            twin.enqueue(keys, own)
            set_rate(step)
            yield model

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
