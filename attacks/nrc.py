"""NRC: neighbourhood reciprocal clustering; predictions are drawn towards those of neighbours in feature space.

Paper: Yang et al., NeurIPS 2021, "Exploiting the Intrinsic Neighborhood Structure for Source-free Domain Adaptation".
With banks of all features f and predictions p, L = -sum_k A_ik <p_k, p_i> over the K nearest neighbours k of i, where
A is 1 if i is among the M nearest neighbours of k (reciprocal) and r otherwise, - r sum_m <p_m, p_i> over their M
neighbours m each (expanded), - entropy of the mean prediction.

Deviations: banks are filled by a pass over all images before the first step (the public code starts them from noise
and, on some data, never visits all rows), then rows follow the batches as there. An image is left out of its own
neighbours by its position, not as the first of the list. As in the public code, i itself may be among the expanded
neighbours, which stands for the paper's self-regularisation, and <p, q> takes the place of KL. Backbone and head share
one rate by default (`backbone=0.1` there). No augmentation.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import Access, Context, Field, register

from ._adaptation import create_sgd, encode, encode_all, first_of_each, marginal_entropy, neighbours
from ._stepwise import Step, Stepwise, descent


@register
class NRC(Stepwise):
    """Cluster the target by reciprocal neighbours."""

    name = "nrc"
    paper = "https://arxiv.org/abs/2110.04202"
    access = Access(target="unlabelled")

    lr: float = Field(default=1e-3, gt=0)
    backbone: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    neighbours: int = Field(default=5, ge=1)
    expanded: int = Field(default=4, ge=1)
    affinity: float = Field(default=0.1, ge=0, le=1)
    diversity: float = Field(default=1.0, ge=0)

    def steps_of(self, model: nn.Module, ctx: Context) -> Step:
        """Fill the banks and return the step."""
        assert ctx.target is not None
        inputs, logits = encode_all(model, ctx.target.x)
        bank, scores = F.normalize(inputs), logits.softmax(1)

        def loss(taken: int, x: Tensor, own: Tensor) -> Tensor:
            inputs, logits = encode(model, x)
            first = first_of_each(own)
            bank[own[first]] = F.normalize(inputs[first].detach())
            scores[own[first]] = logits[first].detach().softmax(1)
            near, affinities = reciprocal(bank, own, self.neighbours, self.expanded, self.affinity)
            attraction = (logits.softmax(1) * (affinities[:, :, None] * scores[near]).sum(1)).sum(1).mean()
            return -attraction - self.diversity * marginal_entropy(logits)

        model.train()
        return descent(create_sgd(model, self.lr, self.backbone, self.weight_decay), loss)


@torch.no_grad()
def reciprocal(bank: Tensor, own: Tensor, count: int, expanded: int, affinity: float) -> tuple[Tensor, Tensor]:
    """Return the neighbours of rows `own` [b] of a bank [n, d] and of these, with their affinities, both [b, k + k m].

    The first k columns are nearest neighbours, with affinity 1 where they are reciprocal; the rest are the m nearest
    neighbours of each.
    """
    near = neighbours(bank[own], bank, count, own)
    further = neighbours(bank[near.flatten()], bank, expanded, near.flatten()).view(*near.shape, -1)
    mutual = (further == own[:, None, None]).any(2)
    first = torch.where(mutual, 1.0, affinity)
    second = further.flatten(1)
    return torch.cat([near, second], 1), torch.cat([first, torch.full_like(second, affinity, dtype=first.dtype)], 1)
