"""Named releases: a safetensors file that carries its card, what it is, how it was made and what it scored."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ntbench.errors import UserError
from ntbench.learn.models import build, load_public
from ntbench.learn.variants import check_fit
from ntbench.types import Arch

Card = dict[str, Any]


class Release(NamedTuple):
    """A model with the weights of a release, in eval mode, and its card, empty where the file has none.

    The model takes images [n, 3, s, s] in [-1, 1] and answers with logits [n, classes].
    """

    model: nn.Module
    card: Card


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values of tensors, whatever file holds them."""
    state = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        state.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        state.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def write_release(file: Path, weights: Mapping[str, Tensor], card: Card, **facts: str) -> Card:
    """Write weights with their card, which is told their hash, and the card once more beside them for people.

    `facts` stand in the file beside the card. The file is whole or absent. Returns the card.
    """
    card = card | {"sha256": weights_digest(weights)}
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".tmp")
    said = partial(json.dumps, card, sort_keys=True, allow_nan=False)
    unfinished.write_bytes(save(dict(weights), metadata={"card": said(), **facts}))
    os.replace(unfinished, file)
    file.with_suffix(".json").write_text(said(indent=1) + "\n", encoding="utf-8")
    return card


def read_card(file: Path) -> Card:
    """Return the card of a file, empty where it has none."""
    try:
        with safe_open(file, framework="pt") as content:
            card: Card = json.loads((content.metadata() or {}).get("card", "{}"))
            held = {name: content.get_tensor(name) for name in content.keys()} if card else {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError):
        return {}
    if card and card.get("sha256") != weights_digest(held):
        raise UserError(f"weights {str(file)!r} are not those of their card; export or fetch them again")
    return card


def load_release(file: str | Path, arch: str | Arch = "", classes: int = 0) -> Release:
    """Return the model and the card of a file of weights; one without a card needs the architecture and its classes.

    Raises UserError on files that cannot be read, do not fit or are not those of their card.
    """
    path = Path(file).expanduser()
    card = read_card(path)
    if not card and not (arch and classes):
        raise UserError(f"weights {str(file)!r} have no card; name `arch`, timm's name, and `classes`")
    declared = Arch(name=arch) if arch and isinstance(arch, str) else arch or Arch.model_validate(card["arch"])
    count = classes or int(card["classes"])
    check_fit(path, declared, count)
    return Release(load_public(build(declared, count, seed=0), path, whole=True).eval(), card)
