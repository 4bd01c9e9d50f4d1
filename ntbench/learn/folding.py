"""Batch norms folded into the layers before them: the same function in eval mode, with fewer passes over memory."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from timm.models import get_notrace_functions, get_notrace_modules
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

TOLERANCE = 1e-3
"""The largest difference of outputs, as a share of the largest of them, that rounding alone explains."""
LINEAR = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
Pairs = tuple[tuple[str, str], ...]
_known: dict[Any, Pairs] = {}
"""What was found by tracing, which takes longer than all else here, by the layers of a network."""


def folded(model: nn.Module, example: Tensor) -> nn.Module:
    """Return a copy of a model in eval mode with its batch norms in the convolutions and linear layers before them.

    Where there are none, where the network cannot be traced, and where the copy answers an example [n, ...] otherwise
    than the model does, that is the model itself.
    """
    pairs = _pairs(model)
    if not pairs:
        return model
    found = copy.deepcopy(model)
    for linear, norm in pairs:
        _fold(found, linear, norm)
    # In lower precision no two ways of computing are alike.
    with torch.autocast(example.device.type, enabled=False):
        return found if _alike(found(example), model(example)) else model


def _alike(answer: Any, wanted: Any) -> bool:
    if not (isinstance(answer, Tensor) and isinstance(wanted, Tensor)):
        return False
    return bool((answer - wanted).abs().max() <= TOLERANCE * wanted.abs().max())


def _fold(model: nn.Module, linear: str, norm: str) -> None:
    layer, bn = model.get_submodule(linear), model.get_submodule(norm)
    fuse: Any = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
    model.set_submodule(linear, fuse(layer, bn))
    rest = nn.Sequential(bn.drop, bn.act) if isinstance(bn, BatchNormAct2d) else nn.Identity()
    model.set_submodule(norm, rest)


def _pairs(model: nn.Module) -> Pairs:
    """Return the names of linear layers with the batch norm that alone takes what they give."""
    layers = tuple((name, type(layer)) for name, layer in model.named_modules())
    if layers not in _known:
        _known[layers] = _traced(model) if any(issubclass(kind, _BatchNorm) for _, kind in layers) else ()
    return _known[layers]


def _traced(model: nn.Module) -> Pairs:
    try:
        graph = _Tracer(autowrap_functions=tuple(get_notrace_functions())).trace(model)
    # Networks of one's own end in any kind of error where they are traced.
    except Exception:
        return ()
    layers = dict(model.named_modules())
    calls = {node: str(node.target) for node in graph.nodes if node.op == "call_module"}
    times = Counter(calls.values())
    return tuple(
        (calls[before], name)
        for node, name in calls.items()
        for before in node.all_input_nodes
        if before in calls and len(before.users) == times[calls[before]] == times[name] == 1
        if type(layers[calls[before]]) in LINEAR and _fixed(layers[name])
    )


def _fixed(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) and layer.running_mean is not None


class _Tracer(fx.Tracer):
    """Goes around what timm knows to be beyond tracing."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in get_notrace_modules() or super().is_leaf_module(m, module_qualified_name)
