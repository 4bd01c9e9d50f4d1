"""What runs by the papers' own protocols give: each side as its paper runs and reports it, read by no worst case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ntbench.measure.areas import slc_auc
from ntbench.measure.intervals import UNKNOWN, Interval, t_interval
from ntbench.suite import Suite
from ntbench.types import Columns, Epochs, Mask, Recipe, Result, Status, columns_of

Quantity = Literal["slc", "accuracy", "zero_shot", "source", "drop", "sparsity"]
"""SLC-AUC against the paper's scratch; accuracy on the target at the most samples, or before any attack; of the source
after protection, how much of it was lost, and the share of released zeros."""


class Run(Recipe):
    """One run: what its protocol reports of it, None where it failed, and after how many passes that stood."""

    task: str
    row: str
    attack: str
    mask: Mask
    samples: int
    seed: int
    status: Status
    passes: int
    score: float | None


class Release(Recipe):
    """What one row released at one seed: accuracies on test data, None where it released nothing."""

    task: str
    row: str
    seed: int
    status: Status
    source_before: float | None
    source: float | None
    zero_shot: float | None
    sparsity: float | None

    @property
    def drop(self) -> float | None:
        """Return how much of the source accuracy was lost."""
        lost = self.source is None or self.source_before is None
        return None if lost else self.source_before - self.source  # type: ignore[operator]


def runs_of(results: Iterable[Result]) -> list[Run]:
    """Return the runs among results that have a paper's protocol and apply, in the order of their places."""
    found = [
        _run(result, result.cell.budget)
        for result in _of_papers(results)
        if isinstance(result.cell.budget, Epochs) and result.status != "inapplicable"
    ]
    return sorted(found, key=lambda run: (run.task, run.row, run.attack, run.mask, run.samples, run.seed))


def _of_papers(results: Iterable[Result]) -> Columns:
    return columns_of(results).where("budget", lambda budget: isinstance(budget, Epochs))


def _run(result: Result, budget: Epochs) -> Run:
    cell, run = result.cell, result.trajectory
    best = budget.chosen(run) if result.status == "ok" else None
    return Run(
        task=cell.task.name,
        row=cell.defense.label,
        attack=cell.attack.label,
        mask=cell.mask,
        samples=cell.samples,
        seed=cell.seed,
        status=result.status,
        passes=0 if best is None else run.step[best] // budget.each,
        score=None if best is None else run.test[best],
    )


def releases_of(results: Iterable[Result]) -> list[Release]:
    """Return what every row released at every seed under a paper's protocol, in the order of their places."""
    found: dict[tuple[str, str, int], Release] = {}
    for result in _of_papers(results):
        cell, done = result.cell, result.protection
        if done is not None:
            place = (cell.task.name, cell.defense.label, cell.seed)
            found[place] = Release(
                task=place[0],
                row=place[1],
                seed=place[2],
                status=done.status,
                source_before=done.source_before,
                source=done.source_after,
                zero_shot=done.zero_shot,
                sparsity=done.sparsity,
            )
    return [found[place] for place in sorted(found)]


@dataclass(frozen=True)
class Reproduction:
    """The runs and releases of one suite; numbers are means over seeds, with the range of too few of them."""

    suite: Suite
    runs: Sequence[Run]
    releases: Sequence[Release]

    @classmethod
    def of(cls, results: Iterable[Result], suite: Suite) -> Reproduction:
        """Take what belongs here from results: runs of a paper's protocol, at the sample counts that the suite has."""
        counts = {task.name: {level.samples for level in task.levels} for task in suite.tasks}
        # Papers' runs first: no object is built of all the others.
        repeated = _of_papers(results)
        found = [result for result in repeated if result.cell.samples in counts.get(result.cell.task.name, ())]
        return cls(suite, runs_of(found), releases_of(found))

    def number(self, task: str, row: str, quantity: Quantity, scratch: str = "") -> Interval:
        """Return a quantity of a row on a task under its paper's setting, unknown where no seed has it.

        `scratch` names an attack that areas are taken against in place of the paper's own.
        """
        if quantity == "slc":
            return self.mean(self._areas(task, row, scratch or self._of_scratch(row)).values())
        if quantity == "accuracy":
            return self._reached(task, self.curves(task, row))
        values = (getattr(r, quantity) for r in self.releases if (r.task, r.row) == (task, row))
        return self.mean(value for value in values if value is not None)

    def under(self, task: str, attack: str) -> dict[str, Interval]:
        """Return what every row that a dense attack was run on comes to at the most samples, in the suite's order."""
        there = {run.row for run in self.runs if (run.task, run.attack, run.mask) == (task, attack, "dense")}
        rows = [row for entry in self.suite.defenses for row in entry.rows if row in there]
        return {row: self._reached(task, self._curves(task, row, attack, "dense")) for row in rows}

    def _reached(self, task: str, curves: dict[int, dict[int, float]]) -> Interval:
        last = self.counts(task)[-1]
        return self.mean(curve[last] for curve in curves.values() if last in curve)

    def seeds(self, task: str, row: str) -> int:
        """Return how many seeds a row has a run of its paper's attack at."""
        return len(self.curves(task, row))

    def counts(self, task: str) -> list[int]:
        """Return the sample counts of a task that any run has."""
        return sorted({run.samples for run in self.runs if run.task == task})

    def curves(self, task: str, row: str) -> dict[int, dict[int, float]]:
        """Return by seed and sample count what a row's attacker reaches; for `scratch` that of the suite's setting."""
        return self._curves(task, row, *self.attack(row))

    def attack(self, row: str) -> tuple[str, Mask]:
        """Return the attack, and what it does with released zeros, that a row's paper reports it under."""
        setting = self.suite.paper_setting(row)
        return (self._of_scratch(row), "dense") if row == self.scratch else (setting.attack, setting.mask)

    @property
    def scratch(self) -> str:
        """Return the row that starts without the release, an empty string where the suite has none."""
        return next((row for entry in self.suite.defenses if entry.name == "scratch" for row in entry.rows), "")

    def _areas(self, task: str, row: str, scratch: str) -> dict[int, float]:
        counts, base = self.counts(task), self._curves(task, self.scratch, scratch, "dense")
        both = {seed: (curve, base[seed]) for seed, curve in self.curves(task, row).items() if seed in base}
        return {
            seed: slc_auc(counts, *([curve[n] for n in counts] for curve in pair))
            for seed, pair in both.items()
            if len(counts) > 1 and all(curve.keys() == set(counts) for curve in pair)
        }

    def _of_scratch(self, row: str) -> str:
        setting = self.suite.paper_setting(row)
        return setting.scratch or setting.attack

    def _curves(self, task: str, row: str, attack: str, mask: Mask) -> dict[int, dict[int, float]]:
        found: dict[int, dict[int, float]] = {}
        for run in self.runs:
            if (run.task, run.row, run.attack, run.mask) == (task, row, attack, mask) and run.score is not None:
                found.setdefault(run.seed, {})[run.samples] = run.score
        return found

    @staticmethod
    def mean(values: Iterable[float]) -> Interval:
        """Return the mean of a number a seed, unknown where there is none."""
        found = list(values)
        return t_interval(found) if found else UNKNOWN
