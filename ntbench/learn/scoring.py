"""How a model is scored: what each of some images adds to its score by the task's objective, in eval mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ntbench.tasks.classification import classified
from ntbench.tasks.data import Split
from ntbench.tasks.objective import Objective

CPU = torch.device("cpu")


@torch.inference_mode()
def correct(model: nn.Module, data: Split) -> Tensor:
    """Return what each image adds to a model's score, [n] on the CPU: for classification whether it is right, as bool.

    Every module's mode is put back. Raises ValueError where what the model answers is no plain tensor of finite
    outputs.
    """
    with _evaluated(model):
        return data.objective.each(model, data.held, data.y)


@torch.inference_mode()
def predicted(model: nn.Module, data: Split) -> Tensor:
    """Return the classes that a model gives to images, int64 [n] on the CPU; every module's mode is put back.

    Raises ValueError where what the model answers is no plain tensor of finite logits [b, classes].
    """
    with _evaluated(model):
        return classified(model, data.held)


def accuracy(model: nn.Module, data: Split) -> float:
    """Return the score in eval mode, the share of correct predictions; raises ValueError as `correct` does."""
    return float(correct(model, data).double().mean())


@torch.inference_mode()
def made(model: nn.Module, objective: Objective, count: int, size: int, device: torch.device = CPU) -> Tensor | None:
    """Return images [n, c, s, s] on the CPU that a model makes in eval mode; None where it makes none."""
    with _evaluated(model):
        images = objective.made(model, count, size, device)
    return None if images is None else images.cpu()


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
