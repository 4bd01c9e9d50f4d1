"""Fine-tuning as research code writes it: the opponent of our benchmarks.

A `DataLoader` over a torchvision-style data set with per-item transforms, torch's default memory format and threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from ntbench.data import Split
from ntbench.types import Cell

DEFAULT_THREADS = torch.get_num_threads()

Item = tuple[Tensor, int]


class Pictures(Dataset[Item]):
    """PIL images with labels; the transform runs at every read, as in torchvision's data sets."""

    def __init__(self, split: Split) -> None:
        levels = split.x.mul(127.5).add(127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        self.images = [Image.fromarray(pixels) for pixels in levels]
        self.labels = split.y.tolist()
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Item:
        return self.transform(self.images[index]), self.labels[index]


@dataclass(frozen=True)
class Opponent:
    """What research code starts from: released weights, the attacker's pictures and the test pictures."""

    weights: dict[str, Tensor]
    train: Pictures
    test: Pictures
    loaders: int = 0

    def run(self, cell: Cell, threads: int = DEFAULT_THREADS) -> list[float]:
        """Fine-tune with the cell's Adam, batch size and linear decay; return the test accuracy at its scored steps."""
        ours = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return self._fine_tuned(cell)
        finally:
            torch.set_num_threads(ours)

    def _fine_tuned(self, cell: Cell) -> list[float]:
        params, steps = cell.attack.params, cell.budget.steps
        model: nn.Module = timm.create_model(cell.arch.name, num_classes=10)
        model.load_state_dict(self.weights)
        optimizer = torch.optim.Adam(model.parameters(), lr=params["lr"])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        criterion = nn.CrossEntropyLoss()
        train = DataLoader(self.train, batch_size=params["batch_size"], shuffle=True, num_workers=self.loaders)
        test = DataLoader(self.test, batch_size=200, num_workers=self.loaders)
        step, accuracies = 0, []
        while step < steps:
            for x, y in train:
                model.train()
                loss = criterion(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                step += 1
                if step in cell.budget.scored:
                    accuracies.append(_accuracy(model, test))
                if step == steps:
                    break
        return accuracies


@torch.no_grad()
def _accuracy(model: nn.Module, loader: DataLoader[Item]) -> float:
    model.eval()
    correct = total = 0
    for x, y in loader:
        correct += int((model(x).argmax(1) == y).sum())
        total += len(y)
    return correct / total
