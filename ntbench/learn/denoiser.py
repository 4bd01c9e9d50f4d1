"""A UNet of diffusers with timm's interface: noisy images and their time step in one tensor, the noise out."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from ntbench.learn.output_layer import OutputLayer

SMALL: dict[str, Any] = {"block_out_channels": (16, 32, 32), "layers_per_block": 1, "norm_num_groups": 8}


class Denoiser(UNet2DModel):  # type: ignore[misc]
    """Takes [n, c + 1, s, s], the last plane holding the time step t, and answers with the noise [n, c, s, s].

    Names and shapes of weights are those of diffusers.
    """

    objective: ClassVar[str] = "denoising"
    memory_format: ClassVar[torch.memory_format] = torch.contiguous_format
    """On a CPU group norm takes a fifth of its time in channels_last, and a whole step on 16 images four fifths."""

    def __init__(self, channels: int, **config: Any) -> None:
        """Build a network for images of so many channels by the parameters of `UNet2DModel`."""
        given = SMALL | config
        blocks = len(given["block_out_channels"])
        plain = {
            "down_block_types": ("DownBlock2D",) * blocks,
            "up_block_types": ("UpBlock2D",) * blocks,
            "add_attention": False,
        }
        super().__init__(**(plain | given | {"in_channels": channels, "out_channels": channels}))
        self.conv_out = self._output_layer(channels)

    def _output_layer(self, channels: int) -> OutputLayer:
        return OutputLayer(self.conv_out.in_channels, channels, kernel_size=3, padding=1)

    def get_classifier(self) -> OutputLayer:
        """Return the last convolution."""
        layer: OutputLayer = self.conv_out
        return layer

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last convolution by a fresh one."""
        self.conv_out = self._output_layer(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return what the last convolution sees."""
        held = self.get_classifier()
        self.set_submodule("conv_out", nn.Identity())
        try:
            return self(x)  # type: ignore[no-any-return]
        finally:
            self.conv_out = held

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the noise, or with `pre_logits` what the last convolution sees."""
        return x if pre_logits else self.conv_out(x)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return the order of the blocks from images to noise, as timm's models do."""
        return {
            "stem": r"^conv_in|^time_embedding",
            "down": r"^down_blocks\.(\d+)",
            "middle": r"^mid_block",
            "up": r"^up_blocks\.(\d+)",
        }

    def forward(self, x: Tensor) -> Tensor:
        """Return the noise."""
        noise: Tensor = super().forward(x[:, :-1].contiguous(), x[:, -1, 0, 0]).sample
        return noise
