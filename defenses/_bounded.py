"""NTL's loss: the source task, less the product of two bounded distances between source and target."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import features, head

from ._domains import Batch, both_features
from ._heads import Judge
from ._mmd import mmd

Scale = Literal["nats", "klmean"]
Batches = Literal["own", "joint", "separate"]


def label_loss(logits: Tensor, labels: Tensor, scale: Scale) -> Tensor:
    """Return CE in nats, or CE / K: the KL divergence to one-hot labels averaged over the K classes too (`klmean`)."""
    loss = F.cross_entropy(logits, labels)
    return loss / logits.shape[1] if scale == "klmean" else loss


def features_of_both(model: nn.Module, xs: Tensor, xt: Tensor, batches: Batches) -> tuple[Tensor, Tensor]:
    """Return the features of source and target images.

    `own`: two passes, running statistics of batch norm from source alone; `joint`: one pass with shared statistics;
    `separate`: two passes, both of which the running statistics remember.
    """
    if batches == "own":
        return both_features(model, xs, xt)
    if batches == "separate":
        return features(model, xs), features(model, xt)
    fs, ft = features(model, torch.cat([xs, xt])).tensor_split([len(xs)])
    return fs, ft


def bounded_loss(
    model: nn.Module,
    judge: Judge,
    source: Batch,
    target: Batch,
    alpha: float,
    beta: float,
    scale: Scale,
    batches: Batches,
) -> Tensor:
    """Return CE_S - min(1, alpha * CE_T) * min(1, beta * MMD(f_S, f_T)) on batches (x, y) of equal size.

    The judge, the model's head as a rule, classifies the target's features. A factor at its bound keeps no gradient of
    its own.
    """
    (xs, ys), (xt, yt) = source, target
    fs, ft = features_of_both(model, xs, xt, batches)
    leak = (alpha * label_loss(judge(ft, yt), yt, scale)).clamp_max(1)
    gap = (beta * mmd(fs, ft)).clamp_max(1)
    return label_loss(head(model)(fs), ys, scale) - leak * gap
