"""Classification: the class of an image, learnt by cross-entropy and scored by the share of images that are right."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.tasks.objective import SCORING_BATCH, Objective
from ntbench.tasks.pixels import floats
from ntbench.types import Arch


class Classification(Objective):
    """Tell classes apart; outputs are logits [n, classes]."""

    name: ClassVar[str] = "classification"
    example: ClassVar[Arch] = Arch(name="cnns_bn")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy in nats."""
        return F.cross_entropy(outputs, targets)

    def each(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return which images a model classifies rightly, bool [n] on the CPU.

        Raises ValueError where what the model answers is no plain tensor of finite logits [b, classes].
        """
        return classified(model, x) == y.cpu()


CLASSIFYING = Classification()


def classified(model: nn.Module, x: Tensor) -> Tensor:
    """Return the classes that a model in eval mode gives to images, int64 [n] on the CPU; raises as `each` does."""
    return torch.cat([_logits(model, floats(images)).argmax(1).cpu() for images in x.split(SCORING_BATCH)])


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    logits = model(x)
    if type(logits) is not Tensor or logits.ndim != 2 or len(logits) != len(x):
        shape = tuple(getattr(logits, "shape", ()))
        raise ValueError(f"the model answers {len(x)} images with {type(logits).__name__} {shape}, not [n, classes]")
    if not torch.isfinite(logits).all():
        raise FloatingPointError("the model's logits are not finite")
    return logits
