"""Layers by depth: how far from the input a parameter lies, counted in blocks."""

from collections.abc import Mapping, Sequence
from typing import Any

from timm.models import group_parameters
from torch import Tensor, nn


def depths(model: nn.Module) -> dict[str, int]:
    """Return the layer of every parameter by name, 0 next to the input; a block and its norms are one layer.

    timm says what the blocks of its networks are. In others it is what one module holds directly, and a norm between
    two blocks belongs to the one before it.
    """
    matcher = getattr(model, "group_matcher", None)
    if matcher is not None:
        return dict(group_parameters(model, matcher(coarse=False), reverse=True))
    blocks: dict[str, int] = {}
    found = {}
    for name, parameter in model.named_parameters():
        owner = name.rpartition(".")[0]
        block = owner.rpartition(".")[0] or owner
        if parameter.ndim > 1 or not blocks:
            blocks.setdefault(block, len(blocks))
        found[name] = blocks.get(block, len(blocks) - 1)
    return found


def decayed(model: nn.Module, trained: Sequence[Tensor], decay: float) -> dict[Tensor, float]:
    """Return a factor for every trained parameter, which falls from each layer that trains to the one before it."""
    depth = depths(model)
    places: dict[Tensor, int] = {parameter: depth[name] for name, parameter in model.named_parameters()}
    layers = sorted({places[parameter] for parameter in trained})
    return {parameter: decay ** (len(layers) - 1 - layers.index(places[parameter])) for parameter in trained}


def groups_of(trained: Sequence[Tensor], factors: Mapping[Tensor, float], lr: float) -> list[dict[str, Any]]:
    """Return parameter groups with their factors times a rate, the lowest rate first."""
    groups: dict[float, list[Tensor]] = {}
    for parameter in trained:
        groups.setdefault(factors.get(parameter, 1.0), []).append(parameter)
    return [{"params": groups[factor], "lr": lr * factor} for factor in sorted(groups)]
