"""Where a network comes from: timm by its name, or a function of one's own in a package or a file."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import timm
from torch import Tensor, nn

import ntbench.learn.small
import ntbench.learn.unets  # noqa: F401  (both make our networks known to timm)
from ntbench.errors import UserError, unknown
from ntbench.registry import import_file
from ntbench.sources import files_digest, files_from
from ntbench.types import Arch

TIMMS = ("get_classifier", "reset_classifier", "forward_features", "forward_head")
"""What a network offers by which it is taken apart; one that lacks it gets it, if it ends in a linear layer."""


def maker(arch: Arch) -> Callable[..., nn.Module]:
    """Return what builds an architecture from `num_classes` and its parameters.

    `package.module:function` and `file.py:function` are functions of one's own; their code runs in this process. Raises
    UserError on names that nothing stands for, and where the code is not what the recipe says.
    """
    place, colon, function = arch.name.rpartition(":")
    if not colon:
        if not timm.is_model(arch.name):
            raise unknown("architecture", arch.name, timm.list_models())
        return partial(timm.create_model, arch.name)
    module = _module(arch.name)
    if arch.code and arch.code != _code(module):
        raise UserError(f"the code of architecture {arch.name!r} changed; plan the run again")
    found = getattr(module, function, None)
    if not callable(found):
        raise unknown(f"function of {place!r}:", function, [name for name in vars(module) if name[0] != "_"])
    return lambda num_classes, **params: _fitted(arch.name, found(num_classes=num_classes, **params), num_classes)


def hashed(arch: Arch) -> Arch:
    """Return an architecture with the hash of its code, where that is one's own."""
    return arch.model_copy(update={"code": _code(_module(arch.name))}) if ":" in arch.name else arch


def _module(name: str) -> ModuleType:
    place = name.rpartition(":")[0]
    if place.endswith(".py"):
        return import_file(place)
    try:
        return importlib.import_module(place)
    except ImportError as error:
        raise UserError(
            f"architecture {name!r}: {place!r} cannot be imported ({error}); install its package, or give the path of "
            "its file as in my_net.py:build"
        ) from None


def _code(module: ModuleType) -> str:
    return files_digest(files_from(Path(module.__file__ or "")))


def _fitted(name: str, model: Any, classes: int) -> nn.Module:
    """Return a network with timm's interface: its own, or one around its last linear layer."""
    if not isinstance(model, nn.Module):
        raise UserError(f"architecture {name!r} returns {type(model).__name__}, not a torch module; mend its function")
    if all(hasattr(model, method) for method in TIMMS):
        return model
    layers = [path for path, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    if not layers or model.get_submodule(layers[-1]).out_features != classes:
        raise UserError(
            f"architecture {name!r} does not end in a linear layer of num_classes = {classes} outputs; let it, or give "
            f"it timm's methods {', '.join(TIMMS)}"
        )
    # A class and no attributes: a copy of the model must not speak for the original.
    model.__class__ = type(type(model).__name__, (_Headed, type(model)), {"__module__": type(model).__module__})
    model.head_name = layers[-1]
    return model


class _Headed(nn.Module):
    """Timm's interface for a network whose last step is a linear layer; the names of its weights stay as they are."""

    head_name: str

    def get_classifier(self) -> nn.Module:
        """Return the head."""
        return self.get_submodule(self.head_name)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head by a fresh one."""
        held = self.get_classifier()
        assert isinstance(held, nn.Linear)
        fresh = nn.Linear(held.in_features, num_classes, device=held.weight.device)
        self.set_submodule(self.head_name, fresh)

    def plain(self, x: Tensor) -> Tensor:
        """Return what the network itself gives."""
        return super().forward(x)  # type: ignore[no-any-return]

    def forward_features(self, x: Tensor) -> Tensor:
        """Return what the network gives to its head, [n, d]."""
        held = self.get_classifier()
        self.set_submodule(self.head_name, nn.Identity())
        try:
            return self.plain(x)
        finally:
            self.set_submodule(self.head_name, held)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Classify features unless `pre_logits`."""
        return x if pre_logits else self.get_classifier()(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, by way of the features, as timm's networks do."""
        return self.forward_head(self.forward_features(x))
