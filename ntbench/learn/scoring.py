"""How a model is scored: which of the images it gets right, in eval mode."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ntbench.tasks.data import Split

SCORING_BATCH = 200


def correct(model: nn.Module, data: Split) -> Tensor:
    """Return which images a model classifies rightly, bool [n] on the CPU; raises ValueError as `predicted` does."""
    return predicted(model, data) == data.y.cpu()


@torch.inference_mode()
def predicted(model: nn.Module, data: Split) -> Tensor:
    """Return the classes that a model gives to images, int64 [n] on the CPU; every module's mode is put back.

    Raises ValueError where what the model answers is no plain tensor of finite logits [b, classes].
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    classes = torch.cat([_logits(model, x).argmax(1).cpu() for x in data.x.split(SCORING_BATCH)])
    for module, mode in modes:
        module.training = mode
    return classes


def accuracy(model: nn.Module, data: Split) -> float:
    """Return the share of correct predictions in eval mode; raises ValueError as `correct` does."""
    return float(correct(model, data).double().mean())


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    logits = model(x)
    if type(logits) is not Tensor or logits.ndim != 2 or len(logits) != len(x):
        shape = tuple(getattr(logits, "shape", ()))
        raise ValueError(f"the model answers {len(x)} images with {type(logits).__name__} {shape}, not [n, classes]")
    if not torch.isfinite(logits).all():
        raise FloatingPointError("the model's logits are not finite")
    return logits
