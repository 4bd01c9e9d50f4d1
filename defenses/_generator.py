"""Networks that make and judge images: a decoder, a discriminator with two outputs, and channels that stand still."""

import math
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DIRECTIONS = 4
_BASE = 4
_WIDEST = 8


class Decoder(nn.Module):
    """Turns vectors [n, inputs] into maps [n, 3, size, size] by transposed convolutions of stride 2."""

    def __init__(self, inputs: int, size: int, width: int) -> None:
        """Build as many doublings as lie between 4 pixels and the size, the last hidden one `width` channels wide."""
        super().__init__()
        channels = _widths(size, width)
        self.size, self.base = size, math.ceil(size / 2 ** len(channels))
        self.project = nn.Linear(inputs, channels[-1] * self.base**2)
        self.hidden = nn.Sequential(*(_up(a, b) for a, b in pairwise(reversed(channels))))
        self.paint = nn.ConvTranspose2d(channels[0], 3, 4, stride=2, padding=1)

    def forward(self, codes: Tensor) -> Tensor:
        """Return maps of any range."""
        maps = self.project(codes).unflatten(1, (-1, self.base, self.base))
        painted: Tensor = self.paint(self.hidden(maps.relu()))
        return painted[..., : self.size, : self.size]


class Generator(nn.Module):
    """Draws images [n, 3, size, size] in [-1, 1] of given classes."""

    def __init__(self, classes: int, latent: int, size: int, width: int) -> None:
        """Build a decoder of noise [n, latent] and one-hot labels [n, classes]."""
        super().__init__()
        self.classes, self.latent = classes, latent
        self.decoder = Decoder(latent + classes, size, width)

    def forward(self, labels: Tensor, noise: torch.Generator) -> Tensor:
        """Return one image for every label [n]."""
        z = torch.randn(len(labels), self.latent, generator=noise).to(labels.device)
        images: Tensor = self.decoder(torch.cat([z, F.one_hot(labels, self.classes)], 1)).tanh()
        return images


class Discriminator(nn.Module):
    """Judges images: features [n, d], realness [n] (1 real, 0 made) and class logits [n, classes]."""

    def __init__(self, classes: int, size: int, width: int) -> None:
        """Build convolutions of stride 2 down to about 4 pixels."""
        super().__init__()
        channels = _widths(size, width)
        first = [nn.Conv2d(3, width, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
        rest = [_down(a, b) for a, b in pairwise(channels)]
        self.body = nn.Sequential(*first, *rest, nn.Flatten())
        features = channels[-1] * math.ceil(size / 2 ** len(channels)) ** 2
        self.real, self.classify = nn.Linear(features, 1), nn.Linear(features, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features, realness and class logits."""
        found = self.body(x)
        return found, self.real(found).squeeze(1), self.classify(found)


def initialise(net: nn.Module, generator: torch.Generator) -> None:
    """Draw convolutions and linear layers as torch draws them, but from a CPU generator."""
    for layer in net.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            for parameter in layer.parameters(recurse=False):
                nn.init.uniform_(parameter, -bound, bound, generator=generator)


def freeze_channels(net: Decoder, direction: int) -> None:
    """Stop for good the gradients of the first direction / 4 of the output channels of every hidden layer."""
    for layer in net.hidden.modules():
        if isinstance(layer, (nn.ConvTranspose2d, nn.BatchNorm2d)):
            for parameter in layer.parameters(recurse=False):
                axis = int(parameter.ndim > 1)  # transposed convolutions have their output channels second
                moving = torch.arange(parameter.shape[axis]) >= direction * parameter.shape[axis] / DIRECTIONS
                mask = moving.view(-1, 1, 1) if axis else moving
                parameter.register_hook(partial(torch.mul, mask.to(parameter)))


def blur(images: Tensor) -> Tensor:
    """Return images [n, c, s, s] under a binomial filter, mirrored at the borders.

    It spans an eleventh of the side: 3 pixels of 32 and 5 of 64 as in NTL's public code, and 1 of 16, which is nothing.
    """
    channels, span = images.shape[1], images.shape[-1] // 11 | 1
    line = images.new_tensor([math.comb(span - 1, k) for k in range(span)]) / 2 ** (span - 1)
    kernel = line.outer(line).expand(channels, 1, span, span)
    return F.conv2d(F.pad(images, (span // 2,) * 4, mode="reflect"), kernel, groups=channels)


def _widths(size: int, width: int) -> list[int]:
    """Return the channels at every resolution, the finest first; they double with every halving up to a limit."""
    halvings = max(1, int(math.log2(size / _BASE)))
    return [width * min(2**i, _WIDEST) for i in range(halvings)]


def _up(inputs: int, outputs: int) -> nn.Sequential:
    layer = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _down(inputs: int, outputs: int) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2))
