"""What a file of weights would fit, where it does not fit what is declared: other classes, a size, a relative."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from ntbench.errors import UserError
from ntbench.learn.checkpoints import in_words, misfits, read_state
from ntbench.learn.models import build, head, head_names
from ntbench.types import Arch

TRIED = 40
"""How many relatives of an architecture are compared with a file."""
OURS = ["cnns_bn", "cnn_bn"]


def check_fit(file: Path, arch: Arch, classes: int) -> None:
    """Raise UserError where a file does not hold an architecture with so many classes, and say what would fit."""
    found, model = read_state(file), build(arch, classes, seed=0)
    wrong = misfits(model.state_dict(), found)
    if wrong:
        said = f"weights {str(file)!r} do not fit {arch.name!r} with {classes} classes: {in_words(wrong)}"
        raise UserError(f"{said}; {_remedy(found, wrong, model, arch, classes)}")
    if spoilt := next((name for name, tensor in found.items() if not torch.isfinite(tensor).all()), ""):
        raise UserError(f"weights {str(file)!r}: {spoilt!r} is not finite; give weights that answer with numbers")


def _remedy(found: Mapping[str, Tensor], wrong: Mapping[str, str], model: nn.Module, arch: Arch, classes: int) -> str:
    held = _classes(found, model)
    if wrong.keys() <= head_names(model):
        if held is None:
            return "its classifier is missing or named otherwise; give the whole state dict"
        return f"its classifier has {held} classes and the source {classes}: give the images that it was trained on"
    if all("pos_embed" in name or "relative_position" in name for name in wrong.keys() - head_names(model)):
        return "its positions are those of another image size; give the size that it was trained at"
    if relative := _relative(found, arch.name):
        return f"they fit {relative}"
    return "no architecture of that family has these weights; give the one that they were trained with"


def classes_of(found: Mapping[str, Tensor], arch: Arch) -> int | None:
    """Return how many classes the classifier of some weights of an architecture tells apart, None without one."""
    return _classes(found, build(arch, 2, seed=0))


def _classes(found: Mapping[str, Tensor], model: nn.Module) -> int | None:
    weight = next(name for name, p in model.named_parameters() if p is head(model).weight)
    return len(found[weight]) if weight in found and found[weight].ndim == 2 else None


def _relative(found: Mapping[str, Tensor], name: str) -> str:
    """Return the nearest name of timm's under which all but the classifier fits, with its classes, or nothing."""
    family = re.match("[a-z]*", name)
    known = OURS if name in OURS else timm.list_models(f"{family[0] if family else name}*")
    for other in get_close_matches(name, known, n=TRIED, cutoff=0):
        # No numbers: shapes alone are asked for.
        with torch.device("meta"):
            model = timm.create_model(other, num_classes=2)
        if isinstance(model.get_classifier(), nn.Linear) and not misfits(model.state_dict(), found, head_names(model)):
            return f"{other!r} with {_classes(found, model)} classes"
    return ""
