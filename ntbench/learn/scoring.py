"""How a model is scored: what each of some images adds to its score by the task's objective, in eval mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ntbench.learn.folding import folded
from ntbench.tasks.classification import classified
from ntbench.tasks.data import Split
from ntbench.tasks.objective import Objective
from ntbench.tasks.pixels import floats
from ntbench.types import Precision

CPU = torch.device("cpu")
EXAMPLES = 4
"""Images on which a lighter copy of a model must answer as the model does."""


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
def validated(model: nn.Module, data: Split, scoring: Precision) -> float:
    """Return the score that choices rest on, which no board shows: as `accuracy` does, or faster and less exactly.

    In bfloat16 it is that of a copy with its batch norms folded into the layers before them, where that is possible.
    """
    if scoring == "float32":
        return accuracy(model, data)
    objective, few = data.objective, data.held[:EXAMPLES]
    example, _ = objective.batch(floats(few), data.y[:EXAMPLES], torch.Generator().manual_seed(0))
    with _evaluated(model):
        lighter = folded(model, example)
        with torch.autocast(data.held.device.type, torch.bfloat16, cache_enabled=False):
            return float(objective.each(lighter, data.held, data.y).double().mean())


@torch.inference_mode()
def made(
    model: nn.Module, objective: Objective, count: int, size: int, device: torch.device = CPU, noise: int = 0
) -> Tensor | None:
    """Return images [n, c, s, s] on the CPU that a model makes in eval mode of noise by a seed; None where none."""
    with _evaluated(model):
        images = objective.made(model, count, size, device, noise)
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
