"""The preprocessing that belongs to a model: it takes images in [-1, 1], as all do here, and shifts them itself.

Attacks then change, mix and bound images of one range, whatever the weights were trained on.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from ntbench.types import Arch, Channels

HALF: Channels = (0.5, 0.5, 0.5)


def usual(name: str) -> tuple[Channels, Channels]:
    """Return mean and standard deviation, of pixels in [0, 1], of timm's data config of an architecture."""
    config = get_pretrained_cfg(name)
    return (tuple(config.mean), tuple(config.std)) if config else (HALF, HALF)


def with_usual(arch: Arch) -> Arch:
    """Return the architecture with the preprocessing that timm has for it, unless it names its own."""
    if arch.mean is not None:
        return arch
    mean, std = usual(arch.name)
    return arch.model_copy(update={"mean": mean, "std": std})


def sized(arch: Arch, size: int) -> Arch:
    """Return the architecture built for images of a size in pixels, where timm's networks of its kind fix one."""
    config = get_pretrained_cfg(arch.name)
    if not (config and config.fixed_input_size) or "img_size" in arch.params:
        return arch
    return arch.model_copy(update={"params": {**arch.params, "img_size": size}})


def preprocessing(model: nn.Module, arch: Arch) -> nn.Module:
    """Let a model shift and scale its input as its architecture says; its parameters and their names stay."""
    if arch.mean is None or arch.std is None or (arch.mean, arch.std) == (HALF, HALF):
        return model
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (arch.mean, arch.std))
    # Not persistent: they are part of the architecture, and no weights that somebody releases.
    model.register_buffer("input_shift", 2 * mean - 1, persistent=False)
    model.register_buffer("input_scale", 2 * std, persistent=False)
    kind: Any = type(model)
    model.__class__ = _preprocessing(kind)
    return model


@cache
def _preprocessing(kind: type[Any]) -> type[Any]:
    # A class and no hook: features are asked for by name, past the model's own call, and copies take their class along.
    class Preprocessing(kind):  # type: ignore[misc]
        def forward_features(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
            return super().forward_features((x - self.input_shift) / self.input_scale, *args, **kwargs)

    Preprocessing.__name__ = Preprocessing.__qualname__ = kind.__name__
    return Preprocessing
