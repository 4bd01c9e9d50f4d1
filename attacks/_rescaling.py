"""Changes of scale that leave a network's function as it is: which layers allow them, and the changes themselves."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

HOMOGENEOUS = {"ReluBackward0", "MaxPool2DWithIndicesBackward0", "AvgPool2DBackward0", "AdaptiveAvgPool2DBackward0"}
"""Operations with f(s x) = s f(x) for s > 0 that keep channels apart, by the names of their gradients."""


@dataclass(frozen=True)
class Wiring:
    """Names of layers that feed one layer alone: convolutions a batch norm, and either of them a convolution.

    Between the two layers of `pairs` lie homogeneous operations at most, of those of `normed` nothing.
    """

    normed: list[tuple[str, str]]
    pairs: list[tuple[str, str]]


def wiring(model: nn.Module, x: Tensor) -> Wiring:
    """Read from autograd's graph over images which layers feed which; weights that are used twice are left out."""
    # Under autocast a cast would stand between a weight and its layer.
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        root = model.eval()(x).grad_fn
    uses, found = consumers(root), Wiring([], [])
    layers = layers_of(model, uses)
    for node, name in layers.items():
        feeder, layer = feeding(node, layers, uses), model.get_submodule(name)
        if feeder is None:
            continue
        if isinstance(layer, nn.Conv2d) and layer.groups == 1:
            found.pairs.append((layers[feeder], name))
        direct = node.next_functions[0][0] is feeder and isinstance(model.get_submodule(layers[feeder]), nn.Conv2d)
        if isinstance(layer, BatchNorm) and direct:
            found.normed.append((layers[feeder], name))
    return found


def image_side(model: nn.Module, usual: int = 64) -> int:
    """Return a side of images in pixels that a network takes: its own, where its patches are cut from one size."""
    own = getattr(getattr(model, "patch_embed", None), "img_size", None)
    return int(own[0]) if own else usual


def layers_of(model: nn.Module, uses: Counter[Node]) -> dict[Node, str]:
    """Return the nodes that are convolutions or batch norms with a weight of their own, and the layers' names."""
    owners = {id(m.weight): name for name, m in model.named_modules() if isinstance(m, (nn.Conv2d, BatchNorm))}
    layers = {}
    for node in uses:
        # Both have (input, weight, bias) as inputs.
        weight = node.next_functions[1][0] if len(node.next_functions) > 1 else None
        if weight is not None and uses[weight] == 1 and (name := owners.get(id(getattr(weight, "variable", None)))):
            layers[node] = name
    return layers


def consumers(root: Node) -> Counter[Node]:
    """Return every node below a node of autograd's graph and how many inputs it feeds."""
    uses, waiting = Counter([root]), [root]
    while waiting:
        for parent, _ in waiting.pop().next_functions:
            if parent is not None:
                waiting += [parent] * (parent not in uses)
                uses[parent] += 1
    return uses


def feeding(node: Node, layers: dict[Node, str], uses: Counter[Node]) -> Node | None:
    """Return the layer that feeds a layer, and nothing else, through homogeneous operations, or None."""
    parent = node.next_functions[0][0]
    while parent is not None and uses[parent] == 1:
        if parent in layers:
            return parent
        if parent.name() not in HOMOGENEOUS:
            return None
        parent = parent.next_functions[0][0]
    return None


@torch.no_grad()
def renormalise(conv: nn.Module, norm: nn.Module, goal: Tensor) -> None:
    """Give every filter of a convolution an L2 norm [o], and let the batch norm behind it make up.

    With filters s times as large, gamma' = gamma sqrt(s^2 v + eps) / (s sqrt(v + eps)). Filters of zero stay.
    """
    assert isinstance(norm, BatchNorm) and norm.running_mean is not None and norm.running_var is not None
    scale = quotient(goal, magnitude(conv))
    multiply(conv, scale)
    before = norm.running_var + norm.eps
    norm.running_mean.mul_(scale)
    norm.running_var.mul_(scale**2)
    norm.weight.mul_(((norm.running_var + norm.eps) / before).sqrt() / scale)


@torch.no_grad()
def balance(first: nn.Module, second: nn.Module, goals: tuple[Tensor, Tensor]) -> None:
    """Scale channels up in one layer and down in the convolution behind it until both are equally far from goals [c].

    With r = |outgoing| / goal of the first and q = |incoming| / goal of the second, s = sqrt(q / r), and both become
    sqrt(r q), channel by channel. Channels of which one side is zero stay.
    """
    assert isinstance(second, nn.Conv2d)
    scale = quotient(magnitude(second, 1) * goals[0], magnitude(first) * goals[1]).sqrt()
    multiply(first, scale)
    second.weight.div_(scale[:, None, None])


@torch.no_grad()
def multiply(layer: nn.Module, scale: Tensor) -> None:
    """Multiply the output channels of a convolution or the weights and biases of a batch norm."""
    for parameter in layer.parameters(recurse=False):
        parameter.mul_(scale.view(-1, *[1] * (parameter.ndim - 1)))


@torch.no_grad()
def magnitude(layer: nn.Module, axis: int = 0) -> Tensor:
    """Return the L2 norm of every filter, of every input channel (`axis` 1), or of (gamma, beta), as [c]."""
    if isinstance(layer, BatchNorm):
        return torch.hypot(layer.weight, layer.bias)
    assert isinstance(layer, nn.Conv2d)
    norms: Tensor = torch.linalg.vector_norm(layer.weight.transpose(0, axis).flatten(1), dim=1)
    return norms


def quotient(above: Tensor, below: Tensor) -> Tensor:
    """Return above / below, and 1 where either side is zero."""
    return torch.where((above > 0) & (below > 0), above / below, 1.0)
