"""What attacks without target labels share: entropies, passes over all images, neighbours, and the optimizer."""

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from ntbench.method import Context, Split, features, head

SCORING_BATCH = 200


def check_label_space(model: nn.Module, ctx: Context) -> None:
    """Raise ValueError where the classes of the head cannot be those of the target."""
    if (own := head(model).out_features) != ctx.target_classes:
        raise ValueError(
            f"the head knows {own} classes and the target has {ctx.target_classes}; without labels they must be equal"
        )


def indexed_batches(
    data: Split, ctx: Context, batch_size: int, generator: torch.Generator, views: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images [b, 3, s, s] and their positions in the split [b]; b shrinks to what the budget has a view."""
    size = min(batch_size, max(1, ctx.budget.samples // (ctx.budget.steps * views)))
    positions = torch.arange(len(data), device=data.x.device)
    return Split(data.x, positions).batches(size, generator)


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


def create_decay(optimizer: SGD, steps: int) -> LambdaLR:
    """Build the schedule lr_i = lr_0 (1 + 10 i / steps)^-0.75 for i steps taken."""
    return LambdaLR(optimizer, lambda i: (1 + 10 * i / steps) ** -0.75)


def batch_statistics(model: nn.Module) -> list[_BatchNorm]:
    """Make batch norms use and track the statistics of batches, put all else into eval mode, and return them."""
    model.eval()
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for layer in layers:
        layer.train()
    return layers


def first_of_each(positions: Tensor) -> Tensor:
    """Return where in a batch [b] each position comes first, since torch leaves the order of double writes open."""
    first = (positions[:, None] == positions).int().argmax(1)
    return (first == torch.arange(len(positions), device=positions.device)).nonzero().flatten()


class SlowTwin:
    """A copy that follows a model slowly (MoCo), what it thinks of every target image, and its keys of the latest ones.

    `features` [n, d] and `probabilities` [n, K] belong to the images, `keys` [q, d] to the images at `owners` [q].
    """

    def __init__(self, model: nn.Module, x: Tensor, momentum: float, queue: int) -> None:
        """Copy a model and look at all images; the queue of keys is empty and grows up to one for each image."""
        self._model, self._momentum, self._longest = copy.deepcopy(model), momentum, min(queue, len(x))
        inputs, logits = encode_all(self._model.requires_grad_(False), x)
        self.features, self.probabilities = F.normalize(inputs), logits.softmax(1)
        self.keys, self.owners = self.features[:0], torch.arange(0, device=x.device)
        self._model.train()

    @torch.no_grad()
    def refine(self, model: nn.Module, x: Tensor, own: Tensor, count: int) -> Tensor:
        """Return the mean predictions [b, K] of the images nearest to these in the model's features.

        What the twin thinks of the images, at positions `own` [b], is renewed afterwards.
        """
        inputs, _ = encode(model, x)
        refined = self.probabilities[neighbours(F.normalize(inputs), self.features, count)].mean(1)
        inputs, logits = encode(self._model, x)
        first = first_of_each(own)
        self.features[own[first]] = F.normalize(inputs[first])
        self.probabilities[own[first]] = logits[first].softmax(1)
        return refined

    @torch.no_grad()
    def follow(self, model: nn.Module, x: Tensor) -> Tensor:
        """Move towards a model by 1 - momentum and return keys [b, d] of images."""
        for slow, fast in zip(self._model.parameters(), model.parameters(), strict=True):
            slow.lerp_(fast, 1 - self._momentum)
        return F.normalize(encode(self._model, x)[0])

    def enqueue(self, keys: Tensor, own: Tensor) -> None:
        """Put the keys of the images at positions `own` [b] in front; the oldest leave."""
        self.keys = torch.cat([keys, self.keys])[: self._longest]
        self.owners = torch.cat([own, self.owners])[: self._longest]


def info_nce(queries: Tensor, positives: Tensor, keys: Tensor, excluded: Tensor, temperature: float) -> Tensor:
    """Return -log(e^(q k+ / t) / (e^(q k+ / t) + sum_k e^(q k / t))) over the keys [q, d] that are not excluded [b, q].

    It is the batch mean over queries [b, d] and their positives [b, d], all L2-normalised.
    """
    near = (queries * positives).sum(1, keepdim=True)
    far = (queries @ keys.T).masked_fill(excluded, -math.inf)
    return -(torch.cat([near, far], 1) / temperature).log_softmax(1)[:, 0].mean()
