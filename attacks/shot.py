"""SHOT: source hypothesis transfer; the classifier stays, and features move until it is sure and balanced about them.

Paper: Liang et al., ICML 2020, "Do We Really Need to Access the Source Data?". With the head frozen, in nats,
L = mean entropy - entropy of the mean prediction + 0.3 CE(pseudo-labels). Pseudo-labels are those of the nearest
class centroid in cosine distance: centroids weighted by predictions first, by the labels found afterwards (eqs. 4-6).

Deviations: the released network has no bottleneck and no weight-normalised classifier of its own making, so all layers
below the head share one learning rate; no augmentation; entropies are exact, without the public code's 1e-5 inside
the logarithm. NTLBench's SHOT is `entropy=0, diversity=0` with a head that is trained, which is not offered.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import Access, Context, Field, head, register

from ._adaptation import create_sgd, encode_all, marginal_entropy, mean_entropy
from ._stepwise import Step, Stepwise, descent, power_decay


@register
class Shot(Stepwise):
    """Maximise information under a frozen head and follow centroid pseudo-labels."""

    name = "shot"
    paper = "https://arxiv.org/abs/2002.08546"
    access = Access(target="unlabelled")

    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    entropy: float = Field(default=1.0, ge=0)
    diversity: float = Field(default=1.0, ge=0)
    pseudo: float = Field(default=0.3, ge=0)
    refreshes: int = Field(default=15, ge=1)

    def steps_of(self, model: nn.Module, ctx: Context) -> Step:
        """Freeze the head and return the step; pseudo-labels are made anew `refreshes` times on the way."""
        assert ctx.target is not None
        images, every = ctx.target.x, max(1, ctx.steps // self.refreshes)
        labels = ctx.target.y.clone()
        head(model).requires_grad_(False)

        def loss(taken: int, x: Tensor, own: Tensor) -> Tensor:
            if taken % every == 0:
                inputs, logits = encode_all(model, images)
                labels.copy_(centroid_labels(inputs, logits.softmax(1)))
            return self._loss(model(x), labels[own])

        optimizer = create_sgd(model, self.lr, 1.0, self.weight_decay)
        model.train()
        return descent(optimizer, loss, power_decay(optimizer, ctx.steps))

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        information = self.entropy * mean_entropy(logits) - self.diversity * marginal_entropy(logits)
        return information + self.pseudo * F.cross_entropy(logits, labels)


@torch.no_grad()
def centroid_labels(inputs: Tensor, probabilities: Tensor) -> Tensor:
    """Return the class [n] whose centroid is nearest in cosine distance to features [n, d] with a 1 put behind them.

    The first centroids weigh all samples by their probabilities [n, K], the second ones are plain means over the
    labels that the first ones give. A class that nobody has been given is out of the race.
    """
    unit = F.normalize(torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1))
    weights, labels = probabilities, probabilities.argmax(1)
    for _ in range(2):
        empty = torch.bincount(labels, minlength=probabilities.shape[1]) == 0
        # Cosines do not see the scale of a centroid, so its weights need no sum of 1.
        cosines = unit @ F.normalize(weights.T @ unit).T
        labels = cosines.masked_fill(empty, -torch.inf).argmax(1)
        weights = F.one_hot(labels, probabilities.shape[1]).to(unit)
    return labels
