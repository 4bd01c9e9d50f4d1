"""Protecting a model of a notebook, in process, as a cell of a suite does it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from ntbench.engine.store import Store
from ntbench.errors import UserError, unknown
from ntbench.learn.models import build, check_device, pack, unpack
from ntbench.method import Defense
from ntbench.notebook.memory import Data, HeldRunner, classes_of, declared, measured, pair, task_of
from ntbench.registry import registry
from ntbench.report.display import count, percent, points
from ntbench.suite import Limits
from ntbench.tasks.classification import CLASSIFYING
from ntbench.types import Arch, Budget, Cell, Level, MethodSpec, Protection, Training, pack_bits

NOTHING = Protection()


@dataclass(frozen=True, eq=False)
class Protected:
    """A protected model, and what protecting it did and cost.

    `facts` has `source_before` and `source_after`, accuracies on source test images, `zero_shot` on target test images,
    `protect_steps`, `protect_seconds` and `protect_flops`.
    """

    model: nn.Module
    defense: MethodSpec
    facts: Protection

    def __repr__(self) -> str:
        """Return what was done in a line."""
        before, after = self.facts.source_before or 0.0, self.facts.source_after or 0.0
        return (
            f"<{self.defense.label}: source accuracy {percent(after)}%, {points(after - before, signed=True)} points; "
            f"{count(self.facts.protect_steps)} steps>"
        )


def protect(
    defense: str | Defense,
    model: nn.Module,
    *,
    source: Data,
    target: Data | None = None,
    source_test: Data | None = None,
    target_test: Data | None = None,
    arch: str | Arch | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
    **settings: Any,
) -> Protected:
    """Protect a model that was trained on source and return the protected one; the given model stays as it is.

    `defense` is a registered name, with hyper-parameters as further arguments, or a `Defense`. Data are (images,
    labels) tensors or data sets, as the model is fed them; a fifth of each validates, and another fifth tests unless
    test data are given. `arch` is the timm architecture, where fresh models cannot be drawn from the model itself::

        done = ntbench.protect("sophon", model, source=(x, y), target=(u, v))
        done.model, done.facts.source_after

    Raises UserError on what does not fit, and UnusableError where the defense cannot keep the source.
    """
    check_device(device)
    method = _method(defense, settings)
    if reason := CLASSIFYING.refuses(method):
        raise UserError(f"{reason}; name such an objective in a suite, `ntbench run` that, and load the folder")
    if method.needs_target and target is None:
        raise UserError(f"{method.name} needs a target; give target=")
    arch = declared(model, arch)
    domains = pair(source, target, source_test, target_test, classes_of(model))
    cell = _cell(arch, task_of(domains, _LEVELS, target is not None), method, seed)
    right = measured(model, domains["source"], device)
    before = NOTHING.model_copy(
        update={"source_before": float(right.double().mean()), "clean": pack_bits(right.numpy())}
    )
    with TemporaryDirectory() as folder, _stepping(Console(stderr=True), method.name, progress):
        bench = HeldRunner(Store(Path(folder)), torch.device(device), Limits(), domains=domains).bench(cell)
        bench.defense = method
        released, facts = bench.protected(pack(model), before)
    facts = facts if target is not None else facts.model_copy(update={"zero_shot": None})
    return Protected(unpack(released, build(cell.arch, classes_of(model), 0)), cell.defense, facts)


_LEVELS = (Level(samples=1, t90=1), Level(samples=2, t90=1))
"""What no defender sees of an attacker."""


def _method(defense: str | Defense, settings: dict[str, Any]) -> Defense:
    if isinstance(defense, Defense):
        return defense
    cls = registry.get("defense", defense)
    for name in settings:
        if name not in cls.model_fields:
            raise unknown(f"hyper-parameter of defense {defense!r}:", name, cls.model_fields)
    try:
        method: Defense = cls(**settings)
    except ValidationError as error:
        item = error.errors()[0]
        raise UserError(f"{defense}: {'.'.join(map(str, item['loc']))} = {item['input']!r}: {item['msg']}") from None
    return method


def _cell(arch: Arch, task: Any, method: Defense, seed: int) -> Cell:
    nobody = MethodSpec(kind="attack", name="nobody", version=1, code="", params={}, label="nobody")
    return Cell(
        protocol="notebook",
        task=task,
        arch=arch,
        pretrain=Training(),
        defense=method.spec(),
        attack=nobody,
        budget=Budget(t90=1),
        samples=1,
        seed=seed,
    )


@contextmanager
def _stepping(console: Console, name: str, shown: bool) -> Iterator[None]:
    """Show how many optimizer steps were taken for as long as the block runs; nobody knows how many there will be."""
    columns = (SpinnerColumn(), TextColumn("{task.description}: {task.completed:.0f} steps"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not shown, transient=True) as bar:
        task = bar.add_task(name, total=None)
        hook = register_optimizer_step_post_hook(lambda *_: bar.advance(task))
        try:
            yield
        finally:
            hook.remove()
