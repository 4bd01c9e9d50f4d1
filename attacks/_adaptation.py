"""What attacks without target labels share: entropies, passes over all images, neighbours, and their optimizer."""

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD

from ntbench.method import Context, features, head

SCORING_BATCH = 200


def check_label_space(model: nn.Module, ctx: Context) -> None:
    """Raise ValueError where the classes of the head cannot be those of the target."""
    if (own := head(model).out_features) != ctx.target_classes:
        raise ValueError(
            f"the head knows {own} classes and the target has {ctx.target_classes}; without labels they must be equal"
        )


def encode(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the features [n, d] and logits [n, K] of images."""
    inputs = features(model, x)
    return inputs, head(model)(inputs)


@torch.no_grad()
def encode_all(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the features [n, d] and logits [n, K] of any number of images in eval mode; the mode is put back."""
    mode = model.training
    model.eval()
    parts = [encode(model, part) for part in x.split(SCORING_BATCH)]
    model.train(mode)
    inputs, logits = zip(*parts, strict=True)
    return torch.cat(inputs), torch.cat(logits)


def mean_entropy(logits: Tensor) -> Tensor:
    """Return the batch mean of the predictions' entropies in nats, of logits [n, K]."""
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()


def marginal_entropy(logits: Tensor) -> Tensor:
    """Return the entropy of the batch mean of the predictions in nats, of logits [n, K]; at most log K."""
    log_mean = logits.log_softmax(1).logsumexp(0) - math.log(len(logits))
    return -(log_mean.exp() * log_mean).sum()


@torch.no_grad()
def neighbours(queries: Tensor, bank: Tensor, count: int, own: Tensor | None = None) -> Tensor:
    """Return which rows of a bank [n, d] are nearest to queries [m, d], both L2-normalised, as [m, min(count, there)].

    `own` [m] names a row for every query that is left out.
    """
    similarity = queries @ bank.T
    if own is not None:
        similarity = similarity.scatter(1, own[:, None], -math.inf)
    there = len(bank) - (own is not None)
    return similarity.topk(min(count, there)).indices


def create_sgd(model: nn.Module, lr: float, backbone: float, weight_decay: float) -> SGD:
    """Build SGD with Nesterov momentum 0.9: `lr` for the head, unless it is frozen, `backbone * lr` for the rest."""
    layer = head(model)
    own = set(layer.parameters())
    rest = [p for p in model.parameters() if p not in own]
    groups = [{"params": rest, "lr": backbone * lr}]
    if layer.weight.requires_grad:
        groups.append({"params": list(own), "lr": lr})
    return SGD(groups, lr=lr, momentum=0.9, nesterov=True, weight_decay=weight_decay)


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms that have running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


def batch_statistics(model: nn.Module) -> list[_BatchNorm]:
    """Make batch norms use and track the statistics of batches, put all else into eval mode, and return them."""
    model.eval()
    layers = batch_norms(model)
    for layer in layers:
        layer.train()
    return layers


def without_batch_norm(model: nn.Module) -> str:
    """Return in words that a network has no batch norm to adapt, or an empty string where it has."""
    return "" if batch_norms(model) else f"{type(model).__name__} has no batch norm"


def first_of_each(positions: Tensor) -> Tensor:
    """Return where in a batch [b] each position comes first, since torch leaves the order of double writes open."""
    first = (positions[:, None] == positions).int().argmax(1)
    return (first == torch.arange(len(positions), device=positions.device)).nonzero().flatten()
