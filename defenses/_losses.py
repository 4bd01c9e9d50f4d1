"""What a defense wants from target logits, as losses in nats to be minimised."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def inverse_cross_entropy(logits: Tensor, labels: Tensor, floor: float = 1e-4) -> Tensor:
    """Return the batch mean of -log(1 - p_y), at most -log(floor) a sample (SOPHON, ICE as its paper has it)."""
    others = logits.scatter(1, labels[:, None], -math.inf).logsumexp(1) - logits.logsumexp(1)
    return -others.clamp_min(math.log(floor)).mean()


def reversed_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return CE(1 - z, y) = z_y + log sum_j exp(-z_j), which SOPHON's public code minimises in place of its ICE."""
    return F.cross_entropy(1 - logits, labels)


def kl_to_uniform(logits: Tensor) -> Tensor:
    """Return the batch mean of KL(U || p) with 1 / K for the K classes of the logits [n, K] (SOPHON, KLU)."""
    return -logits.log_softmax(1).mean() - math.log(logits.shape[1])


def negative_entropy(logits: Tensor) -> Tensor:
    """Return the batch mean of sum_j p_j log p_j, from -log K at uniform predictions to 0 at certain ones (TAR)."""
    p = logits.log_softmax(1)
    return (p.exp() * p).sum(1).mean()


@torch.no_grad()
def best_recoding(logits: Tensor, labels: Tensor, steps: int = 25) -> Tensor:
    """Return the W in [-1, 1]^{K x K} that minimises CE(logits W, labels) for logits [n, K] (MLAC, linear adversary).

    It is found by projected accelerated gradient descent (FISTA) from W = 0.
    """
    wanted = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    # The Hessian of CE in its logits is at most 1/2.
    rate = 2 * len(logits) / torch.linalg.matrix_norm(logits, 2).square().clamp_min(1e-12)
    w = ahead = torch.zeros_like(logits[0]).expand(logits.shape[1], -1)
    for step in range(steps):
        gradient = logits.T @ ((logits @ ahead).softmax(1) - wanted) / len(logits)
        before, w = w, (ahead - rate * gradient).clamp(-1, 1)
        ahead = w + step / (step + 3) * (w - before)
    return w


def recoded_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return CE after the best linear recoding of the logits, in nats: what an adversary can still read off them."""
    return F.cross_entropy(logits @ best_recoding(logits.detach(), labels), labels)
