"""Sharpness-aware minimisation: the point nearby where the loss is highest to first order."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def climb(
    parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor], rho: float, adaptive: bool = True
) -> dict[str, Tensor]:
    """Return w + rho g / ||g||, or where `adaptive` w + rho w^2 g / ||w g||, of parameters and gradients by name.

    The norm is over all parameters (ASAM, Kwon et al. 2021, eq. 6). What comes back has the gradient of w itself.
    """
    scales = {name: p.detach().abs() if adaptive else torch.ones_like(p) for name, p in parameters.items()}
    scaled = {name: scales[name] * gradient for name, gradient in gradients.items()}
    norm = torch.stack([part.norm() for part in scaled.values()]).norm() + 1e-12
    return {name: p + rho / norm * scales[name] * scaled[name] for name, p in parameters.items()}


def above(model: nn.Module, loss: Tensor, rho: float, adaptive: bool = True) -> dict[str, Tensor]:
    """Return the parameters of a model by name after they climb along the gradient of its loss."""
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    return climb(parameters, dict(zip(parameters, gradients, strict=True)), rho, adaptive)
