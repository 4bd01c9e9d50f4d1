"""Attacking a model of a notebook, in process: a suite of one release, whose results are a run like any other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import nn

from ntbench.engine.calibrate import calibrated
from ntbench.engine.plan import cells_of
from ntbench.engine.progress import tally
from ntbench.engine.store import Store
from ntbench.errors import UserError
from ntbench.learn.models import check_device, pack
from ntbench.method import Attack
from ntbench.notebook.memory import Data, HeldRunner, classes_of, declared, pair, task_of
from ntbench.notebook.run import Run
from ntbench.registry import registry
from ntbench.suite import AttackEntry, DefenseEntry, Limits, PaperSetting, Suite
from ntbench.types import Arch, Cell, Level, Result

GRID = "{optimizer} {lr:g}"
ATTACKS = (
    AttackEntry(name="finetune", label=GRID, params={"optimizer": "momentum"}, grid={"lr": [1e-3, 1e-2, 1e-1]}),
    AttackEntry(name="finetune", label=GRID, params={"optimizer": "adam"}, grid={"lr": [3e-4, 3e-3, 3e-2]}),
    AttackEntry(name="finetune", label="new head, " + GRID, params={"init": "reinit", "optimizer": "adam", "lr": 3e-3}),
    AttackEntry(name="perturb", label="shrink and perturb, " + GRID, params={"optimizer": "adam", "lr": 3e-3}),
)
"""What is tried where nobody names attacks."""
LEAST = 2
"""Sample counts that a curve needs."""


def attack(
    model: nn.Module,
    *,
    source: Data,
    target: Data,
    source_test: Data | None = None,
    target_test: Data | None = None,
    undefended: nn.Module | None = None,
    attacks: Sequence[str | Attack | AttackEntry] = ATTACKS,
    samples: Sequence[int] = (),
    seeds: int = 3,
    steps: int | None = None,
    name: str = "release",
    arch: str | Arch | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> Run:
    """Attack a model, and training from scratch alike, and return the run: frames, curves, figures, a verdict.

    Data are (images, labels) tensors or data sets, as the model is fed them; of the target's a fifth validates and
    another fifth tests unless test data are given. `samples` are the attackers' sample counts, by default three up to
    all that train. Budgets go to 8 T90, which is measured first, or to so many `steps`: then there is neither speed-up
    nor verdict. With `undefended`, the model before it was protected, there is a leak and a source drop::

        run = ntbench.attack(model, source=(x, y), target=(u, v), undefended=clean)
        run.leaderboard(), run.plot.learning_curves("release")

    Seeds draw the attackers' samples and batches; the release is one, so that intervals say nothing of other releases
    of its defense. Raises UserError on what does not fit.
    """
    check_device(device)
    arch = declared(model, arch)
    domains = pair(source, target, source_test, target_test, classes_of(model))
    levels = _levels(samples, len(domains["target"].train), domains["target"].classes, steps)
    if undefended is not None:
        declared(undefended, arch)
    console = Console(stderr=True, quiet=not progress)
    with TemporaryDirectory() as folder:
        clean = None if undefended is None else _saved(undefended, folder, "undefended")
        suite = Suite(
            name="notebook",
            version=1,
            summary="a model of a notebook",
            seeds=tuple(range(seeds)),
            arch=arch,
            paper=PaperSetting(attack=""),
            tasks=(task_of(domains, levels),),
            defenses=_rows(name, _saved(model, folder, "release"), clean),
            attacks=tuple(_entry(given) for given in attacks),
        )
        runner = HeldRunner(Store(Path(folder)), torch.device(device), Limits(), domains=domains)
        compute = partial(_computed, runner, console)
        suite = calibrated(suite, compute, lambda line: console.print(line, highlight=False))
        return Run(compute(cells_of(suite)), suite, name)


def _computed(runner: HeldRunner, console: Console, cells: list[Cell]) -> list[Result]:
    results = []
    with tally(console, 0, len(cells), 0) as shown:
        for cell in cells:
            results.append(runner.run(cell))
            shown.cell(results[-1])
    return results


def _saved(model: nn.Module, folder: str, name: str) -> str:
    """Write a model's weights, since releases that nobody protects here come as files, and return the path."""
    file = Path(folder) / f"{name}.safetensors"
    save_file(pack(model), file)
    return str(file)


def _rows(name: str, release: str, undefended: str | None) -> tuple[DefenseEntry, ...]:
    if name in ("none", "scratch"):
        raise UserError(f"name={name!r} is that of another row; choose another")
    label = name.replace("{", "{{").replace("}", "}}")
    scratch, clean = DefenseEntry(name="scratch"), () if undefended is None else (undefended,)
    given = DefenseEntry(label=label, release=(release,), undefended=clean)
    return (DefenseEntry(name="none"), scratch, given) if clean else (scratch, given)


def _entry(given: str | Attack | AttackEntry) -> AttackEntry:
    if isinstance(given, AttackEntry):
        return given
    if isinstance(given, Attack):
        registry.get("attack", given.name)
        return AttackEntry(name=given.name, params=given.model_dump(mode="json"))
    registry.get("attack", given)
    return AttackEntry(name=given)


def _levels(samples: Sequence[int], most: int, classes: int, steps: int | None) -> list[Level]:
    least = min(max(2 * classes, most // 16), most // 2)
    counts = sorted(set(samples or (least, round((least * most) ** 0.5), most)))
    if len(counts) < LEAST or counts[0] < 1 or counts[-1] > most:
        raise UserError(f"samples={counts}: give two counts or more from 1 to {most}, the target images that train")
    if steps is not None and steps < 8:
        raise UserError(f"steps={steps} leave no smaller budgets; give 8 or more")
    return [Level(samples=n, t90=None if steps is None else steps / 8) for n in counts]
