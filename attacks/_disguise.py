"""Networks that change images and judge them, whatever the size of the images."""

import math

import torch
from torch import Tensor, nn


class Disguise(nn.Module):
    """Changes images [n, 3, s, s] by what its convolutions add to them; it begins as the identity."""

    def __init__(self, width: int, depth: int, generator: torch.Generator) -> None:
        """Draw `depth` hidden convolutions of a width; the last one is all zeros."""
        super().__init__()
        self.body = nn.Sequential(*(_hidden(width if layer else 3, width) for layer in range(depth)))
        self.paint = nn.Conv2d(width, 3, 3, padding=1)
        initialise(self.body, generator)
        for parameter in self.paint.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Return images in [-1, 1]."""
        changed: Tensor = x + self.paint(self.body(x))
        return changed.clamp(-1, 1)


class Critic(nn.Sequential):
    """Judges patches of 11 pixels of images [n, 3, s, s]: [n, 1, s / 2, s / 2], 1 for source and 0 for disguised."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        """Draw three convolutions, the first of which halves the size."""
        super().__init__(
            nn.Conv2d(3, width, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 3, padding=1),
        )
        initialise(self, generator)


def game(critic: nn.Module, made: Tensor, real: Tensor, weight: float) -> Tensor:
    """Return weight * (D(made) - 1)^2, without a gradient for D, + D's own loss, without one for the images made."""
    critic.requires_grad_(False)
    fooled = critic(made)
    critic.requires_grad_(True)
    true, false = critic(torch.cat([real, made.detach()])).split([len(real), len(made)])
    loss: Tensor = ((true - 1).square().mean() + false.square().mean()) / 2 + weight * (fooled - 1).square().mean()
    return loss


def initialise(net: nn.Module, generator: torch.Generator) -> None:
    """Draw convolutions as torch draws them, but from a CPU generator."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            for parameter in layer.parameters(recurse=False):
                nn.init.uniform_(parameter, -bound, bound, generator=generator)


def _hidden(inputs: int, outputs: int) -> nn.Sequential:
    # Instance norm and not batch norm: images are disguised one by one.
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(layer, nn.InstanceNorm2d(outputs, affine=True), nn.ReLU())
