"""How evenly features span their space, in double precision, by the eigenvalues of their Gram matrix."""

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Gram = Literal["smaller", "features"]


def seen_rows(layer: nn.Module, x: Tensor) -> Tensor:
    """Return what every output of a last layer sees of its inputs, [n, d]: rows, or a convolution's patches."""
    if not isinstance(layer, nn.Conv2d):
        return x
    patches = F.unfold(x, layer.kernel_size, layer.dilation, cast(tuple[int, ...], layer.padding), layer.stride)
    return patches.transpose(1, 2).flatten(0, 1)


def gram(x: Tensor, form: Gram = "smaller") -> Tensor:
    """Return a Gram matrix of x [n, d] in double precision.

    `features` is S = X^T X [d, d], which is singular where n < d; `smaller` is S or X X^T, whichever is smaller: they
    share all eigenvalues but zeros.
    """
    x = x.double()
    return x @ x.T if form == "smaller" and len(x) < x.shape[1] else x.T @ x


def well_conditioned(s: Tensor) -> Tensor:
    """Return max(eig)^2 / 2 - |S|_F^2 / (2 k) for S [k, k]: at least 0, and 0 where all eigenvalues are equal."""
    return _eigenvalues(s)[-1].square() / 2 - s.square().sum() / (2 * len(s))


def ill_conditioned(s: Tensor, floor: float = 1e-9) -> Tensor:
    """Return 1 / max(|S|_F^2 / (2 k) - min(eig)^2 / 2, floor) for S [k, k]: largest where all eigenvalues are equal."""
    spread = s.square().sum() / (2 * len(s)) - _eigenvalues(s)[0].square() / 2
    return 1 / spread.clamp_min(floor)


def _eigenvalues(s: Tensor) -> Tensor:
    """Return the eigenvalues of a symmetric matrix, rising; gradients flow where some of them are equal too."""
    values: Tensor = torch.linalg.eigvalsh(s)
    return values
