"""Folders in which diffusers saved a model: whether the network that is declared is the one that was saved."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ntbench.errors import UserError

CONFIG = "config.json"
FREE = ("sample_size",)
"""What a config says that decides nothing about the network."""


def check_same(model: nn.Module, folder: Path) -> None:
    """Raise UserError where a folder holds no config of a UNet of diffusers, or that of another UNet than a model.

    Settings without weights of their own, such as the activation, would change the function without a word.
    """
    own = getattr(model, "config", None)
    if not isinstance(own, Mapping):
        raise UserError(
            f"weights {str(folder)!r} are a folder, and {type(model).__name__} is no network of diffusers; give a file"
        )
    theirs = _defaults(model) | _read(folder)
    wrong = {
        name: theirs[name]
        for name, value in own.items()
        if not name.startswith("_") and name not in FREE and _plain(theirs.get(name)) != _plain(value)
    }
    if wrong:
        told = ", ".join(f"{name} = {json.dumps(_plain(value))}" for name, value in sorted(wrong.items()))
        raise UserError(f"weights {str(folder)!r} are of another network; its [arch] has params with {told}")


def _read(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"weights {str(folder)!r} have no {CONFIG} that can be read ({error})") from None
    kind = config.get("_class_name") if isinstance(config, dict) else None
    if kind != "UNet2DModel":
        raise UserError(f"weights {str(folder)!r} are of {kind}; give a folder that UNet2DModel.save_pretrained wrote")
    return dict(config)


def _defaults(model: nn.Module) -> dict[str, Any]:
    """Return what diffusers takes for settings that a config lacks, which older versions did not know."""
    network = type(model).__mro__[1]
    parameters = inspect.signature(network.__init__).parameters.values()  # type: ignore[misc]
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
