"""Data, generators and networks for the tests of learning."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ntbench.tasks.data import Split
from ntbench.types import Arch

SMALL = Arch(name="cnns_bn")


def data(count: int = 50, size: int = 8, seed: int = 0) -> Split:
    x = torch.rand(count, 3, size, size, generator=generator(seed)) * 2 - 1
    y = torch.randint(0, 10, (count,), generator=generator(seed + 100))
    return Split(x.contiguous(memory_format=torch.channels_last), y)


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Mixed(nn.Module):
    """Grouped, strided, dilated and depthwise convolutions, two branches, and a linear head with and without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.grouped = nn.Conv2d(8, 16, 3, groups=4, stride=2)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16, dilation=2, padding=2)
        self.branch = nn.Conv2d(8, 16, 1, stride=2)
        self.inner = nn.Linear(16, 12, bias=False)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = self.depthwise(self.grouped(x).relu()).mean((2, 3)) + self.branch(x).mean((2, 3))
        return self.head(self.inner(x).relu())  # type: ignore[no-any-return]
