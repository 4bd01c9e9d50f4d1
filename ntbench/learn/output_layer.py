"""The last layer of a network that answers with images, in the words of a linear one."""

from __future__ import annotations

from torch import nn


class OutputLayer(nn.Conv2d):
    """The last convolution of a denoiser, which counts its inputs and outputs as a linear layer does."""

    @property
    def in_features(self) -> int:
        """Return how many values one output sees."""
        return self.weight[0].numel()

    @property
    def out_features(self) -> int:
        """Return the channels of the noise."""
        return self.out_channels
