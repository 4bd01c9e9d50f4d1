"""Logit flip: the head is negated, so that the least likely class becomes the most likely, and everything trains.

No paper: a threat that follows from the public code of SOPHON (arXiv 2404.12699, Deng et al.), whose inverse
cross-entropy is CE(1 - z, y): where it is smallest the true class has the smallest logit, so that the model that seems
to know nothing of the target knows all of it, and argmin z = argmax -z.

Deviations: none from a publication. Prediction by argmin without any training is the model before the first step, which
is not scored.
"""

import torch
from torch import nn

from ntbench.method import Context, Defense, Fit, head, register

from ._tuning import Tuning


@register
class LogitFlip(Tuning):
    """Negate the head, then train all parameters."""

    name = "logit_flip"

    def refuses(self, defense: Defense, source_classes: int, target_classes: int) -> str:
        """Return why the attack cannot face a defense on a task, or an empty string where it can."""
        if source_classes != target_classes:
            return f"a head of {source_classes} classes is no head to flip for {target_classes} others"
        return super().refuses(defense, source_classes, target_classes)

    def fit_of(self, model: nn.Module, ctx: Context) -> Fit:
        """Return the training of the model with its head negated."""
        with torch.no_grad():
            for parameter in head(model).parameters():
                parameter.neg_()
        return self.tuning(model, ctx)
