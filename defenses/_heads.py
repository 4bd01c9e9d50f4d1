"""Classifiers that tell a defense what the features of an encoder give away about the target."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import Context, Split, Training, create_optimizer, descend, features, fit, head, reset_head

Judge = Callable[[Tensor, Tensor], Tensor]
"""Takes target features [n, d] and their labels [n] and returns the logits by which a defense is told what leaks."""


def fitted_head(model: nn.Module, ctx: Context, steps: int, lr: float = 1e-2, batch_size: int = 64) -> nn.Linear:
    """Return a frozen head that was trained with Adam on target labels while the given encoder stood still.

    It starts from the model's own head, or from a random one where the class counts differ; the model stays as it is.
    """
    assert ctx.target is not None
    clone = copy.deepcopy(model)
    if head(clone).out_features != ctx.target_classes:
        reset_head(clone, ctx.target_classes, ctx.generator("head"))
    training = Training(optimizer="adam", lr=lr, steps=steps, batch_size=batch_size)
    fit_head(clone, ctx.target, training, ctx.generator("head", "batches"))
    return head(clone).requires_grad_(False)


def fit_head(model: nn.Module, data: Split, training: Training, generator: torch.Generator) -> None:
    """Train the head of a model, in eval mode, on what its encoder makes of images; the encoder stands still."""
    model.eval()
    with torch.no_grad():
        seen = torch.cat([features(model, x) for x in data.x.split(200)])
    for _ in fit(head(model), Split(seen, data.y), training, generator):
        pass


def target_head(model: nn.Module, ctx: Context, steps: int) -> nn.Linear:
    """Return the model's own head where the class counts agree, else a fitted and frozen one."""
    own = head(model)
    return own if own.out_features == ctx.target_classes else fitted_head(model, ctx, steps)


def target_judge(model: nn.Module, ctx: Context, steps: int, refits: int, lr: float = 1e-2) -> Judge:
    """Return the model's own head as a judge, or one that follows the encoder where the class counts differ.

    A frozen judge of other classes is evaded by features that turn away from it and stay as telling as before.
    """
    own = head(model)
    if own.out_features == ctx.target_classes:
        return lambda ft, yt: own(ft)
    return FollowingHead(fitted_head(model, ctx, steps, lr), refits, lr)


class FollowingHead:
    """A linear head that learns a batch for some steps before it judges it, so that it keeps up with the encoder."""

    def __init__(self, layer: nn.Linear, refits: int, lr: float) -> None:
        """Take a head that is fitted to the features as they are now."""
        self._layer, self._refits = layer, refits
        self._optimizer = create_optimizer(layer.requires_grad_(True).parameters(), "adam", lr)

    def __call__(self, ft: Tensor, yt: Tensor) -> Tensor:
        """Return the logits of features [n, d]; gradients flow to the features alone."""
        seen = ft.detach()
        for step in range(1, self._refits + 1):
            descend(self._optimizer, F.cross_entropy(self._layer(seen), yt), step)
        return F.linear(ft, self._layer.weight.detach(), self._layer.bias.detach())
