"""Classifiers that tell a defense what the features of an encoder give away about the target."""

import copy

import torch
from torch import nn

from ntbench.method import Context, Split, Training, features, fit, head, reset_head


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
