"""Denoisers by name: any UNet of diffusers by its own parameters, behind timm's interface."""

from __future__ import annotations

from typing import Any

from timm.models import register_model
from torch import nn

from ntbench.errors import UserError


@register_model  # type: ignore[untyped-decorator]
def unet2d(pretrained: bool = False, num_classes: int = 3, **kwargs: Any) -> nn.Module:
    """Return the `UNet2DModel` of diffusers with its parameters, whose blocks have no attention unless they say so.

    `num_classes` are the channels of the images. Without parameters it has 16, 32 and 32 channels, group norm, and 0.2
    million parameters.
    """
    if pretrained:
        raise UserError(
            "diffusers' UNets have no published weights of one name; give a file or folder as `pretrain.weights`"
        )
    try:
        from ntbench.learn.denoiser import Denoiser
    except ImportError:
        raise UserError("`unet2d` needs diffusers; pip install 'ntbench[generation]'") from None
    return Denoiser(num_classes, **{key: value for key, value in kwargs.items() if key not in TIMMS})


TIMMS = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
"""What timm's factory hands to every model beside the caller's arguments."""
