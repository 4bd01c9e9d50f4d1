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
    clone = copy.deepcopy(model).eval()
    if head(clone).out_features != ctx.target_classes:
        reset_head(clone, ctx.target_classes, ctx.generator("head"))
    with torch.no_grad():
        seen = torch.cat([features(clone, x) for x in ctx.target.x.split(200)])
    classifier = head(clone)
    training = Training(optimizer="adam", lr=lr, steps=steps, batch_size=batch_size)
    for _ in fit(classifier, Split(seen, ctx.target.y), training, ctx.generator("head", "batches")):
        pass
    return classifier.requires_grad_(False)


def target_head(model: nn.Module, ctx: Context, steps: int) -> nn.Linear:
    """Return the model's own head where the class counts agree, else a fitted and frozen one."""
    own = head(model)
    return own if own.out_features == ctx.target_classes else fitted_head(model, ctx, steps)
