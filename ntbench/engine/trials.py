"""The trials of one defense on one task: drawn by a sampler with a fixed seed, and judged by what an attacker gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any

import optuna

from ntbench.engine.plan import plan, resolved
from ntbench.engine.space import Axis
from ntbench.errors import UserError
from ntbench.measure.standing import Standing, Study
from ntbench.suite import DefenseEntry, Suite
from ntbench.types import Cell, MethodSpec, Protection, Result, Task, Tuning

SEED = 2000
STARTUP = 5
"""Trials before the sampler learns from them, the defaults first."""
TRIAL = "trial"
"""The row that stands for the defense in a rehearsal."""
LOST, UNUSABLE, FAILED = 1.0, 2.0, 3.0
"""What stands in place of the uplift: of a trial that loses the source, with its drop on top, and of others."""


@dataclass(frozen=True)
class Trial:
    """One try: the values, what it is worth (the less the better), what the attacker got, and what it cost."""

    values: dict[str, Any]
    merit: float
    leak: float | None
    drop: float | None
    steps: int
    flops: int

    def __str__(self) -> str:
        """Return in words what came of it."""
        if self.drop is None:
            return "no release"
        leak = "no leak to tell" if self.leak is None else f"leak {self.leak:.2f}"
        return f"{leak}, source drop {100 * self.drop:.1f} points"


class Search:
    """A search among the hyper-parameters of one defense, which may be asked for one trial at a time."""

    def __init__(self, suite: Suite, row: str, name: str, stated: Mapping[str, Any], axes: Mapping[str, Axis]) -> None:
        """Take the suite of the rehearsal, the row's label, and the axes that its stated hyper-parameters leave."""
        self.suite, self.row, self.name, self.stated, self.axes = suite, row, name, stated, axes
        self.trials: list[Trial] = []
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=SEED, n_startup_trials=STARTUP)
        self._study = optuna.create_study(direction="minimize", sampler=sampler)
        self._study.enqueue_trial({field: axis.start for field, axis in axes.items()})

    @property
    def task(self) -> Task:
        """Return the task."""
        return self.suite.tasks[0]

    def ask(self) -> list[Cell]:
        """Return the cells of one more trial; none where the defense refuses its values together."""
        self._asked = self._study.ask()
        self._values = {field: axis.suggested(self._asked, field) for field, axis in self.axes.items()}
        try:
            return plan(self._tried())
        except UserError:
            if not self.trials:
                raise
            return []

    def tell(self, results: list[Result]) -> None:
        """Take what came of the trial."""
        trial = judged(self._values, results, self._tried())
        self._study.tell(self._asked, trial.merit)
        self.trials.append(trial)

    def _tried(self) -> Suite:
        entry = DefenseEntry(name=self.name, label=TRIAL, params={**self.stated, **self._values})
        return self.suite.model_copy(update={"defenses": (*self.suite.defenses, entry)})

    @property
    def best(self) -> Trial:
        """Return the best trial, of equals the one that loses less of the source."""
        return min(self.trials, key=lambda trial: (trial.merit, trial.drop or 0.0))

    @property
    def spec(self) -> MethodSpec:
        """Return the recipe with the values of the best trial, and how they were found."""
        best = self.best
        within = [trial for trial in self.trials if trial.merit < LOST]
        tuning = Tuning(
            trials=len(self.trials),
            names=tuple(self.axes),
            steps=sum(trial.steps for trial in self.trials),
            flops=sum(trial.flops for trial in self.trials),
            leak=best.leak,
            drop=best.drop,
            kept=min(within, key=lambda trial: trial.drop or 0.0).values if within else {},
        )
        spec = resolved("defense", self.name, {**self.stated, **best.values}, self.row)
        return spec.model_copy(update={"tuning": tuning})

    def __str__(self) -> str:
        """Return in one line what the search found and cost."""
        cost = sum(trial.steps for trial in self.trials)
        said = f"{self.task.title}: {self.row}: {len(self.trials)} trials, {cost:,} steps in all: "
        if self.best.merit < LOST:
            return f"{said}{self.best}; with its defaults {self.trials[0]}"
        return f"{said}none kept the source within {100 * self.suite.max_drop:g} points, at best {self.best}"


def judged(values: dict[str, Any], results: list[Result], suite: Suite) -> Trial:
    """Return what a trial is worth: uplift within the limit on source drop, above any of these one that is not."""
    own = [result for result in results if result.cell.defense.label == TRIAL]
    protection = next((result.protection for result in own if result.protection), None) or Protection(status="error")
    steps = sum(result.paid for result in own) + (protection.protect_steps or 0)
    flops = sum(max(r.trajectory.flops, default=0) for r in own) + (protection.protect_flops or 0)
    standing = next((s for s in Study(results, suite).standings if s.release.label == TRIAL), None)
    if standing is None or protection.status != "ok":
        lost = protection.status == "unusable"
        return Trial(values, UNUSABLE if lost else FAILED, None, None, steps, flops)
    leak, drop = _rounded(standing.leak.point), _rounded(standing.effect.drop.point)
    return Trial(values, _merit(standing, suite.max_drop), leak, drop, steps, flops)


def _merit(standing: Standing, most: float) -> float:
    uplift, drop = standing.uplift.point, standing.effect.drop.point
    if isnan(uplift) or isnan(drop):
        return FAILED
    # Sums of shares of images are not exact.
    return uplift if drop <= most + 1e-9 else LOST + drop


def _rounded(value: float) -> float | None:
    return None if isnan(value) else round(value, 4)
