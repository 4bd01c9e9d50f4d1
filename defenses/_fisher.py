"""How far classes lie apart in feature space, against how far they spread."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ntbench.method import Split


def fisher_ratio(x: Tensor, labels: Tensor, floor: float = 1e-6) -> Tensor:
    """Return the between-class over the within-class variance of features x [n, d], 0 in the mean without structure.

    Within: squared deviations from the class means over n - K. Between: those of the K class means from their average
    over K - 1, less what the within-class variance alone makes of them. Neither grows with the number of classes or
    falls with the batch. Without two samples of two classes each the ratio is 0.
    """
    member, _, means = _classes(x, labels)
    classes = member.shape[1]
    if classes < 2 or len(x) <= classes:
        return x.sum() * 0
    within = (x - member @ means).square().sum() / (len(x) - classes)
    noise = within * (1 / member.sum(0)).mean()
    between = (means - means.mean(0)).square().sum() / (classes - 1) - noise
    return between / within.clamp_min(floor)


def public_fisher_ratio(x: Tensor, labels: Tensor, floor: float = 1e-6) -> Tensor:
    """Return the ratio of NTP's public code, which depends on the batch and on how many classes it holds.

    Between: the mean squared deviation of the class means from their average. Within: the sum over classes of the mean
    squared deviation from the class mean, at least `floor`. Classes that no label [n] names are left out.
    """
    member, share, means = _classes(x, labels)
    between = (means - means.mean(0)).square().mean()
    within = ((x - member @ means).square().mean(1) @ share).sum()
    return between / within.clamp_min(floor)


def _classes(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return who belongs to which class [n, K], the same as shares of the class, and the class means [K, d]."""
    member: Tensor = (labels[:, None] == labels.unique()).to(x.dtype)
    share = member / member.sum(0)
    return member, share, share.T @ x


def balanced_batches(
    data: Split, size: int, generator: torch.Generator, each: int = 8
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of about `size` samples without end, as many of every class in them, with at least `each` of one.

    Where `size` cannot hold `each` of every class, every batch draws its own classes. A class with fewer samples than
    asked for repeats them.
    """
    labels = data.y.cpu()
    streams = [_endless((labels == k).nonzero()[:, 0], generator) for k in labels.unique()]
    classes = min(len(streams), max(2, size // each))
    per_class = max(1, size // classes)
    while True:
        chosen = torch.randperm(len(streams), generator=generator)[:classes].tolist()
        indices = torch.stack([next(streams[k]) for k in chosen for _ in range(per_class)])
        part = data.subset(indices.to(data.y.device))
        yield part.x, part.y


def _endless(indices: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        yield from indices[torch.randperm(len(indices), generator=generator)]
