"""A kind of task that no release has: the mean brightness of an image's four quarters, learnt by squared error.

What a third file in `ntbench/tasks/` holds; any network whose outputs are vectors does. The score is the mean over
images of exp(-squared error): 1 without an error.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from ntbench.tasks.carried import CARRIED
from ntbench.tasks.objective import SCORING_BATCH, Objective
from ntbench.tasks.pixels import floats
from ntbench.types import Arch


class Quarters(Objective):
    """Tell how bright the quarters are; outputs are [n, 4]."""

    name: ClassVar[str] = "quarters"
    labelled: ClassVar[bool] = False
    example: ClassVar[Arch] = Arch(name="cnns_bn")

    def seen(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images, and labels that say nothing."""
        return x, torch.zeros_like(y)

    def outputs(self, classes: int) -> int:
        """Return the number of quarters."""
        return 4

    def batch(self, x: Tensor, y: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return images and the brightness [b, 4] of their quarters."""
        return x, brightness(x)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error."""
        return F.mse_loss(outputs, targets)

    def each(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return exp(-squared error) of each image, [n] on the CPU."""
        parts = [floats(part) for part in x.split(SCORING_BATCH)]
        return torch.cat([(-(model(part) - brightness(part)).square().mean(dim=1)).exp() for part in parts]).cpu()

    def unfit(self, model: nn.Module) -> str:
        """Return nothing: every classifier's outputs are vectors."""
        return ""

    def refuses(self, method: Any) -> str:
        """Return why a method has no meaning here, or an empty string where it asks for batches and a loss alone."""
        return "" if method.name in CARRIED else super().refuses(method)


def brightness(x: Tensor) -> Tensor:
    """Return the mean over pixels and channels of the quarters of images [n, c, s, s], [n, 4]."""
    return F.adaptive_avg_pool2d(x.mean(dim=1, keepdim=True), 2).flatten(1)
