"""Momentum contrast over the target images: a copy that follows slowly, what is remembered of images, and InfoNCE."""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._adaptation import encode, encode_all, first_of_each, neighbours


class SlowTwin:
    """A copy that follows a model slowly (MoCo), what is remembered of target images, and its keys of the latest ones.

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
    def refine(self, model: nn.Module, x: Tensor, own: Tensor, count: int, slow: bool = True) -> Tensor:
        """Return the mean predictions [b, K] of the images nearest to these in the model's features.

        What is remembered of the images, at positions `own` [b], is renewed afterwards: by the twin, or by the model.
        """
        inputs, logits = encode(model, x)
        refined = self.probabilities[neighbours(F.normalize(inputs), self.features, count)].mean(1)
        if slow:
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
