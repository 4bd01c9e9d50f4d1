"""NTL's loss: the source task, less the product of two bounded distances between source and target."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import features, head

from ._mmd import mmd

Scale = Literal["nats", "klmean"]
Batches = Literal["joint", "separate"]
Batch = tuple[Tensor, Tensor]


def label_loss(logits: Tensor, labels: Tensor, scale: Scale) -> Tensor:
    """Return CE in nats, or CE / K: the KL divergence to one-hot labels averaged over the K classes too (`klmean`)."""
    loss = F.cross_entropy(logits, labels)
    return loss / logits.shape[1] if scale == "klmean" else loss


def bounded_loss(
    model: nn.Module,
    judge: nn.Module,
    source: Batch,
    target: Batch,
    alpha: float,
    beta: float,
    scale: Scale,
    batches: Batches,
) -> Tensor:
    """Return CE_S - min(1, alpha * CE_T) * min(1, beta * MMD(f_S, f_T)) on batches (x, y) of equal size.

    The judge, the model's head as a rule, classifies the target's features. A factor at its bound keeps no gradient of
    its own. `joint` is one pass over both batches.
    """
    (xs, ys), (xt, yt) = source, target
    if batches == "joint":
        fs, ft = features(model, torch.cat([xs, xt])).chunk(2)
    else:
        fs, ft = features(model, xs), features(model, xt)
    leak = (alpha * label_loss(judge(ft), yt, scale)).clamp_max(1)
    gap = (beta * mmd(fs, ft)).clamp_max(1)
    return label_loss(head(model)(fs), ys, scale) - leak * gap
