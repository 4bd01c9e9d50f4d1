"""Classifiers that tell a defense what the features of an encoder give away about the target."""

import copy

from torch import nn

from ntbench.method import Context, Training, fit, head, reset_head


def fitted_head(model: nn.Module, ctx: Context, steps: int, lr: float, batch_size: int) -> nn.Linear:
    """Return a frozen head that was trained with Adam on target labels while the given encoder stood still.

    It starts from the model's own head, or from a random one where the class counts differ; the model stays as it is.
    """
    assert ctx.target is not None
    clone = copy.deepcopy(model)
    if head(clone).out_features != ctx.target_classes:
        reset_head(clone, ctx.target_classes, ctx.generator("head"))
    classifier = head(clone)
    training = Training(optimizer="adam", lr=lr, steps=steps, batch_size=batch_size)
    for _ in fit(clone, ctx.target, training, ctx.generator("head", "batches"), classifier.parameters()):
        pass
    return classifier.requires_grad_(False)
