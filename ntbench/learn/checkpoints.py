"""State dicts from anybody's files: safetensors, or what torch saved without objects. No object is ever unpickled."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ntbench.errors import UserError

WRAPPERS = ("state_dict", "model")
"""Entries that hold a state dict beside what else a training saved."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and Lightning put before every name."""
TOLD = 4
"""How many names that do not fit are told."""


def read_state(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file under the names that the network itself has for them, whatever wrapped it.

    Raises UserError where the file cannot be read, holds objects or is no state dict.
    """
    try:
        return _unwrapped(load_file(file), file)
    except (SafetensorError, OSError) as error:
        return _unwrapped(_read_torch(file, str(error)), file)


def _read_torch(file: Path, before: str) -> Any:
    with warnings.catch_warnings(), suppress(Exception):  # damaged archives raise and warn as their reader pleases
        warnings.simplefilter("ignore")
        return torch.load(file, map_location="cpu", weights_only=True)
    if file.is_file() and zipfile.is_zipfile(file):
        raise UserError(
            f"weights {str(file)!r} hold objects, and no object is ever unpickled; save `model.state_dict()` alone"
        )
    raise UserError(
        f"weights {str(file)!r} cannot be read as safetensors ({before}), nor as tensors that torch.save wrote; "
        "give such a file"
    )


def _unwrapped(found: Any, file: Path) -> dict[str, Tensor]:
    while isinstance(found, Mapping):
        inner = next((found[name] for name in WRAPPERS if isinstance(found.get(name), Mapping)), None)
        if inner is None:
            break
        found = inner
    if not (isinstance(found, Mapping) and found and all(isinstance(value, Tensor) for value in found.values())):
        raise UserError(f"weights {str(file)!r} hold {_seen(found)}, no state dict; save `model.state_dict()`")
    return _plain({str(name): tensor for name, tensor in found.items()})


def _seen(found: Any) -> str:
    if not isinstance(found, Mapping):
        return f"a {type(found).__name__}"
    others = [str(name) for name, value in found.items() if not isinstance(value, Tensor)]
    return f"{', '.join(others[:TOLD])} beside tensors" if others else "nothing"


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    # Whoever compiles a part of a network has the mark inside its names.
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in tensors.items()}


def misfits(own: Mapping[str, Tensor], found: Mapping[str, Tensor], free: Collection[str] = ()) -> dict[str, str]:
    """Return what a file and an architecture have in other shapes, or one of them lacks, in words by name.

    The `free` names may differ.
    """
    wrong = {}
    for name in sorted((own.keys() | found.keys()) - set(free)):
        ours, theirs = (tuple(t[name].shape) if name in t else None for t in (own, found))
        # Counters of batches decide nothing; not every file has them.
        if ours != theirs and not (theirs is None and name.endswith("num_batches_tracked")):
            wrong[name] = f"{name!r} is {theirs or 'missing'} in the file and {ours or 'missing'} in the architecture"
    return wrong


def in_words(wrong: Mapping[str, str]) -> str:
    """Return the first misfits, and how many more there are."""
    told = list(wrong.values())
    return "; ".join([*told[:TOLD], *([f"and {len(told) - TOLD} more"] if len(told) > TOLD else [])])
