"""Fine-tuning as research code writes it, the opponent of the benchmarks, and the cells that both sides run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from timeit import timeit
from typing import Any

import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from ntbench.engine.bench import Bench
from ntbench.engine.plan import plan
from ntbench.engine.runner import Runner
from ntbench.engine.session import cache_folder
from ntbench.engine.store import Store
from ntbench.suite import AttackEntry, DefenseEntry, load_suite
from ntbench.tasks.data import Split
from ntbench.types import Arch, Budget, Cell

seconds = partial(timeit, number=1)
TRIAL = Budget(t90=40, horizon=0.25)
"""10 steps, scored after 5 and 10."""
STRATEGIES: dict[str, dict[str, str]] = {
    "direct-all": {},
    "direct-FC": {"scope": "head"},
    "init-FC-all": {"init": "reinit"},
    "init-FC-FC": {"init": "reinit", "scope": "head"},
}
"""The four of NTLBench, as hyper-parameters of `finetune`."""


def adam_cells(
    rates: Iterable[float],
    samples: int = 600,
    strategies: Iterable[str] = ("direct-all",),
    arch: str = "cnns_bn",
    schedule: str = "cooldown",
    **changes: Any,
) -> list[Cell]:
    """Return cells of `quick` that attack the undefended model of seed 0 with Adam: every learning rate and strategy.

    Further changes are those of fields of the suite.
    """
    attacks = tuple(
        AttackEntry(
            name="finetune",
            label=f"{name} {{lr:g}}",
            params={"optimizer": "adam", "schedule": schedule, **STRATEGIES[name]},
            grid={"lr": list(rates)},
        )
        for name in strategies
    )
    rows = {"defenses": (DefenseEntry(name="none"),), "attacks": attacks, "seeds": (0,), "arch": Arch(name=arch)}
    return [cell for cell in plan(load_suite("quick").model_copy(update=rows | changes)) if cell.samples == samples]


def runner(folder: Path) -> Runner:
    """Return the runner of `quick` on the CPU with its artifacts in a folder."""
    return Runner(Store(folder), torch.device("cpu"), load_suite("quick").limits, cache_folder())


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Give torch a number of threads inside a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measured(benchmark: Any, work: Callable[[], object], rounds: int, before: Callable[[], None] | None = None) -> Any:
    """Time some rounds of work, with something else before each, and return pytest-benchmark's statistics."""
    benchmark.pedantic(work, setup=before, rounds=rounds)
    return benchmark.stats.stats


def default_threads() -> int:
    """Return how many threads torch takes in a process where nobody says anything."""
    return int(subprocess.check_output([sys.executable, "-c", "import torch; print(torch.get_num_threads())"]))


class Pictures(Dataset[tuple[Tensor, int]]):
    """PIL images and labels; the transform runs at every read, as in torchvision's data sets."""

    def __init__(self, split: Split) -> None:
        levels = split.x.mul(127.5).add(127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        self.images = [Image.fromarray(pixels) for pixels in levels]
        self.labels = split.y.tolist()
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


@dataclass(frozen=True)
class ResearchCode:
    """Released weights, the attacker's and the test pictures, loader processes, and torch threads."""

    weights: dict[str, Tensor]
    train: Pictures
    test: Pictures
    loaders: int
    torch_threads: int

    def __str__(self) -> str:
        return f"{self.loaders} loaders, {self.torch_threads} torch threads"

    def run(self, cell: Cell) -> list[float]:
        """Return the test accuracies at every budget of a cell of Adam at a constant rate, which one run passes by.

        Other schedules need a run or a branch for every budget, so that the two sides would not take the same steps.
        """
        assert cell.attack.params["schedule"] == "constant"
        with threads(self.torch_threads):
            return list(self._accuracies(cell))

    def _accuracies(self, cell: Cell) -> Iterator[float]:
        params, ends = cell.attack.params, cell.budget.ends
        model = timm.create_model(cell.arch.name, num_classes=10)
        model.load_state_dict(self.weights)
        if params["init"] == "reinit":
            model.reset_classifier(10)
        full = params["scope"] == "all"
        # A frozen encoder that stays in eval mode, as ours does: NTLBench leaves it in train mode.
        model.requires_grad_(full).get_classifier().requires_grad_(True)
        criterion = nn.CrossEntropyLoss()
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=params["lr"])
        train = DataLoader(self.train, batch_size=params["batch_size"], shuffle=True, num_workers=self.loaders)
        # Batches as large as ours in scoring: larger ones than research code usually takes.
        test = DataLoader(self.test, batch_size=200, num_workers=self.loaders)
        step = 0
        while step < ends[-1]:
            for x, y in train:
                model.train(full)
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
                step += 1
                if step in ends:
                    yield _accuracy(model, test)
                if step == ends[-1]:
                    break


@torch.no_grad()
def _accuracy(model: nn.Module, loader: DataLoader[tuple[Tensor, int]]) -> float:
    model.eval()
    right = [model(x).argmax(1) == y for x, y in loader]
    return torch.cat(right).float().mean().item()


def fastest(ours: Runner, cell: Cell) -> ResearchCode:
    """Return the fastest opponent in a short trial: 0 or 2 loader processes, torch's default of threads or only one.

    One thread is not how research code runs, yet small networks and busy machines favour it: a harder opponent.
    """
    weights, _ = ours.protected(cell)
    shares = Bench(cell, ours.device, ours.cache).shares
    train, test = Pictures(shares.subset), Pictures(shares.target.test)
    assert all(torch.equal(test[i][0], x) for i, x in enumerate(shares.target.test.x)), "both sides see the same pixels"
    trial = cell.model_copy(update={"budget": TRIAL})
    choices = [ResearchCode(weights, train, test, n, t) for n in (0, 2) for t in dict.fromkeys((default_threads(), 1))]
    times = [seconds(partial(choice.run, trial)) for choice in choices]
    print(
        f"\n{TRIAL.ends[-1]} steps of research code:",
        *(f"{t:.2f} s with {c};" for t, c in zip(times, choices, strict=True)),
    )
    return choices[times.index(min(times))]
