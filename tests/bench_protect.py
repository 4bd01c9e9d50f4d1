"""What protecting costs over the plain arithmetic of the method's own forward and backward passes.

A recorder notes what one run of `protect` does with networks: how many images go through one, whether gradients are on,
what trains a head alone, and every optimizer step. The same list is then replayed on a bare network: forwards, cross
entropy and backwards on batches already cut, and steps of the same optimizers on tensors of the same shapes. What
protecting takes longer is everything else: its losses, hooks, copies, draws of batches, clipping and the watch's sums.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from timeit import timeit
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from research_code import adam_cells, measured, runner, threads
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from ntbench.engine.bench import Bench
from ntbench.learn.models import head
from ntbench.learn.optim import create_optimizer
from ntbench.method import Context, Defense
from ntbench.suite import DefenseEntry

GOAL = 1.3
ROUNDS = 3
STEPS, LOOPS = {"steps": 100}, {"loops": 6}
# One step of H-NTL's first stage, whose decoder is no network of the benchmark's, is left: the student's stage counts.
CASES: list[tuple[str, dict[str, Any]]] = [
    ("ntl", STEPS),
    ("cuti", STEPS),
    ("cupi", STEPS),
    ("sophon", {"loss": "ice"} | LOOPS),
    ("sophon", {"loss": "klu"} | LOOPS),
    ("tar", LOOPS),
    ("mlac", LOOPS),
    ("ntp", {"regulariser": "fisher", "iterations": 6}),
    ("ntp", {"regulariser": "mmd", "iterations": 6}),
    ("map", {"rounds": 6}),
    ("immunize", {"rounds": 4}),
    ("hntl", {"steps": 1, "distil_steps": 80}),
]
# CPU time of one thread, which other processes disturb less than the clock on the wall.
seconds = partial(timeit, number=1, timer=time.process_time)


@dataclass
class Recorder:
    """Notes passes of networks with a stem like the given one, passes of heads alone, and optimizer steps."""

    stem: nn.Conv2d
    replays: list[Callable[[Plain], None]] = field(default_factory=list)
    passes: int = 0

    def __enter__(self) -> Recorder:
        self._handles = [register_module_forward_hook(self._forward), register_optimizer_step_post_hook(self._step)]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _forward(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, nn.Conv2d) and module.weight.shape == self.stem.weight.shape:
            self.passes += 1
            self._note(Plain.run, len(inputs[0]), output.requires_grad, module.training)
        if isinstance(module, nn.Linear) and output.requires_grad and not inputs[0].requires_grad:
            self._note(Plain.train_head, len(inputs[0]))

    def _step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        shapes = tuple(p.shape for group in optimizer.param_groups for p in group["params"] if p.grad is not None)
        name = "adam" if isinstance(optimizer, torch.optim.Adam) else "momentum"
        self._note(Plain.step, name, shapes)

    def _note(self, replay: Callable[..., None], *given: object) -> None:
        self.replays.append(lambda plain: replay(plain, *given))


class Plain:
    """A bare network and optimizers, for the passes and steps that a recorder noted."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        """Take a network and at least as many images as the largest pass sees."""
        self._model, self._x, self._y = model.train(), x, y
        self._features = torch.randn(len(x), head(model).in_features)
        self._optimizers: dict[object, Optimizer] = {}

    def run(self, n: int, grad: bool, training: bool) -> None:
        """Send n images through the network, and back where gradients were on."""
        if self._model.training is not training:
            self._model.train(training)
        with torch.set_grad_enabled(grad):
            logits = self._model(self._x[:n])
        if grad:
            self._back(logits)

    def train_head(self, n: int) -> None:
        """Send n features through the head and back."""
        self._back(head(self._model)(self._features[:n]))

    def _back(self, logits: Tensor) -> None:
        self._model.zero_grad()
        cross_entropy(logits, self._y[: len(logits)]).backward()

    def step(self, name: str, shapes: tuple[torch.Size, ...]) -> None:
        """Take one optimizer step on tensors of these shapes."""
        if (name, shapes) not in self._optimizers:
            tensors = [torch.zeros(shape, requires_grad=True) for shape in shapes]
            for tensor in tensors:
                tensor.grad = torch.ones_like(tensor)
            self._optimizers[name, shapes] = create_optimizer(tensors, name, 1e-3)
        self._optimizers[name, shapes].step()


def setting(folder: Path, arch: str, name: str, params: dict[str, Any]) -> tuple[Defense, nn.Module, Context]:
    """Return a defense, what has learnt digits, and all that a defender gets to keep it from digits on photos."""
    [cell] = adam_cells([1e-3], arch=arch, defenses=(DefenseEntry(name=name, params=params),))
    [plain] = adam_cells([1e-3], arch=arch)
    ours = runner(folder)
    bench = Bench(cell, ours.device, ours.cache)
    grant = bench._defenders(ours.protected(plain)[0])
    return bench.defense, grant.model(), grant.context(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("protect")


@pytest.mark.parametrize("arch", ["cnn_bn"])
@pytest.mark.parametrize(("name", "params"), CASES, ids=lambda case: case if isinstance(case, str) else "-".join(case))
def test_protecting_against_plain_passes(
    benchmark: BenchmarkFixture, folder: Path, arch: str, name: str, params: dict[str, Any]
) -> None:
    """Rounds alternate and the fastest of each count; with a tolerance of 1 no weights are refused at the end."""
    ours: list[float] = []
    plain: list[float] = []
    with threads(1):
        defense, model, ctx = setting(folder, arch, name, params | {"tolerance": 1.0})
        stem = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
        with Recorder(stem) as recorded:
            defense.protect(copy.deepcopy(model), ctx)
        images = ctx.source
        assert images is not None

        def both() -> None:
            protected, bare = copy.deepcopy(model), Plain(copy.deepcopy(model), images.x, images.y)
            ours.append(seconds(lambda: defense.protect(protected, ctx)))
            plain.append(seconds(lambda: [replay(bare) for replay in recorded.replays]))

        measured(benchmark, both, ROUNDS)
    ratio = min(ours) / min(plain)
    benchmark.extra_info.update(ratio=ratio, passes=recorded.passes, load=os.getloadavg()[0])
    print(
        f"\nprotect: {name} {params or ''} {min(ours):.2f} s, its {recorded.passes} plain passes {min(plain):.2f} s: "
        f"{ratio:.2f} times; load {os.getloadavg()[0]:.1f}"
    )
    assert recorded.passes > 20, "the recorder must see the networks"
    assert ratio <= GOAL
