"""Attacking a model of a notebook, in process: a suite of one release, whose results are a run like any other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from torch import nn

from ntbench.engine.calibrate import calibrated
from ntbench.engine.plan import cells_of
from ntbench.engine.progress import tally
from ntbench.engine.store import Store
from ntbench.errors import UserError
from ntbench.learn.models import check_device, pack
from ntbench.method import Attack
from ntbench.notebook.memory import Data, Given, HeldRunner, classes_of, declared, measured, pair, task_of
from ntbench.notebook.run import Run
from ntbench.registry import registry
from ntbench.suite import AttackEntry, DefenseEntry, Limits, PaperSetting, Suite
from ntbench.types import Arch, Cell, Level, MethodSpec, Protection, Result, Training, pack_bits

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
    suite = Suite(
        name="notebook",
        version=1,
        summary="a model of a notebook",
        seeds=tuple(range(seeds)),
        arch=arch,
        pretrain=Training(),
        paper=PaperSetting(attack=""),
        tasks=(task_of(domains, levels),),
        defenses=_rows(name, undefended),
        attacks=tuple(_entry(given) for given in attacks),
    )
    if undefended is not None:
        declared(undefended, arch)
    console = Console(stderr=True, quiet=not progress)
    with TemporaryDirectory() as folder:
        runner = HeldRunner(Store(Path(folder)), torch.device(device), Limits(), domains=domains)
        work = _Work(runner, console, model, undefended)
        suite = calibrated(suite, work.compute, lambda line: console.print(line, highlight=False))
        return Run(work.compute(work.cells(suite)), suite, name)


@dataclass(frozen=True, eq=False)
class _Work:
    """The releases of a notebook, and what runs attacks on them."""

    runner: HeldRunner
    console: Console
    model: nn.Module
    undefended: nn.Module | None

    def cells(self, suite: Suite) -> list[Cell]:
        """Return the cells of a suite, in which the release stands in the place of a defense."""
        given = next(entry for entry in suite.defenses if entry.name == Given.name)
        stand_in = given.model_copy(update={"name": "none"})
        others = tuple(stand_in if entry is given else entry for entry in suite.defenses)
        label = given.rows[0]
        spec = MethodSpec(kind="defense", name=Given.name, version=1, code=_digest(self.model), params={}, label=label)
        cells = cells_of(suite.model_copy(update={"defenses": others}))
        return [cell.model_copy(update={"defense": spec}) if cell.defense.label == label else cell for cell in cells]

    def compute(self, cells: list[Cell]) -> list[Result]:
        """Run cells one after another and return their results."""
        before = self._facts(self.undefended, ("source_before", "clean"))
        after = before.model_copy(
            update=dict(self._facts(self.model, ("source_after", "kept")).model_dump(exclude_defaults=True))
        )
        clean = self.model if self.undefended is None else self.undefended
        results = []
        with tally(self.console, 0, len(cells), 0) as shown:
            for cell in cells:
                self.runner.keep(cell.pretrain_key, pack(clean), before)
                if cell.defense.name == Given.name:
                    self.runner.keep(cell.protect_key, pack(self.model), after)
                results.append(self.runner.run(cell))
                shown.cell(results[-1])
        return results

    def _facts(self, model: nn.Module | None, names: tuple[str, str]) -> Protection:
        """Return a model's accuracy on the source and which images it gets right, under these two names."""
        if model is None:
            return Protection()
        assert self.runner.domains
        right = measured(model, self.runner.domains["source"], str(self.runner.device))
        values = (float(right.double().mean()), pack_bits(right.numpy()))
        return Protection.model_validate(dict(zip(names, values, strict=True)))


def _rows(name: str, undefended: nn.Module | None) -> tuple[DefenseEntry, ...]:
    if name in ("none", "scratch"):
        raise UserError(f"name={name!r} is that of another row; choose another")
    label = name.replace("{", "{{").replace("}", "}}")
    none = () if undefended is None else (DefenseEntry(name="none"),)
    return (*none, DefenseEntry(name="scratch"), DefenseEntry(name=Given.name, label=label))


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


def _digest(model: nn.Module) -> str:
    state = hashlib.sha256()
    for name, tensor in pack(model).items():
        state.update(name.encode() + tensor.flatten().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()[:16]
