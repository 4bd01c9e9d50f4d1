"""A run's folder as frames, verdicts and figures."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import pandas as pd
from rich.console import Console

from ntbench.engine.session import open_run
from ntbench.errors import UserError, unknown
from ntbench.measure.board import gates_table
from ntbench.measure.costs import Ratio
from ntbench.measure.intervals import Interval
from ntbench.measure.registered import Registered, known, measured
from ntbench.measure.standing import Study
from ntbench.notebook.plots import Plots
from ntbench.report.display import listed, number
from ntbench.report.metrics import problems
from ntbench.report.sections import summary
from ntbench.report.tables import table
from ntbench.report.words import worded, worded_frame
from ntbench.suite import Suite
from ntbench.types import Result, Task, Track, columns_of


def load(folder: str | PathLike[str]) -> Run:
    """Read a finished or interrupted run from its folder, for example `ntbench.load("runs/quick")`.

    What is computed later is not seen; load the run again. Raises UserError where the folder holds no run.
    """
    session = open_run(Path(folder), Console(stderr=True))
    return Run(session.results(), session.suite, str(folder))


@dataclass(frozen=True)
class Judgement:
    """The verdict of one row with the numbers that it rests on; `str()` says it in a sentence.

    `verdict` is `holds`, `leaks`, `open`, `none` (a gate failed) or empty for a row that is not judged. The leak and
    the source drop are fractions, the speed-up is in steps at 90% of the baseline's plateau.
    """

    defense: str
    task: str
    track: Track
    verdict: str
    reason: str
    leak: Interval
    speedup: Ratio
    drop: Interval
    seeds: int

    def __str__(self) -> str:
        """Return the verdict in a sentence."""
        said = {"": "is not judged", "none": "has no verdict", "open": "is open"}.get(self.verdict, self.verdict)
        leak = ", ".join(number(end) for end in self.leak[1:])
        why = f": {self.reason}" if self.reason else ""
        return f"{self.defense} {said} on {self.task} (leak {number(self.leak.point)} [{leak}]){why}"


class Run:
    """The results of a run as pandas frames, verdicts and figures.

    Every method returns a fresh frame, in which accuracies and differences of accuracies are fractions; columns are
    explained on the report's page, and speak of scores where a suite is about anything but classes. `plot` draws, and
    the run shows its leaderboard where a notebook displays it::

        run = ntbench.load("runs/quick")
        run.leaderboard()[["defense", "leak", "verdict"]]
        print(run.verdict("sophon"))
        run.plot.leak()
    """

    def __init__(self, results: Sequence[Result], suite: Suite, name: str = "") -> None:
        """Take results and the suite that they belong to; `load` reads both from a folder."""
        self.cells, self.suite, self.name = columns_of(results), suite, name or suite.name
        self._held: dict[str, pd.DataFrame] = {}
        self._registered = Registered()

    def __repr__(self) -> str:
        """Return the run in a line."""
        rows = listed(dict.fromkeys(spec.label for spec in self.cells.parts["defense"].present))
        return f"<Run {self.name}: {self.suite.protocol}, {len(self.cells)} cells of {rows or 'no row yet'}>"

    def _repr_html_(self) -> str:
        return summary(self._table("leaderboard"), self.suite)

    @cached_property
    def study(self) -> Study:
        """Return the collected results, which all tables share."""
        return Study(self.cells, self.suite)

    def leaderboard(self) -> pd.DataFrame:
        """Return one row per task, track, defense and mask, the least leak first, with every number of the board.

        Metrics that this process has registered are columns too; one that fails warns, and `NAME_error` says why.
        """
        metrics, board = known(), self._table("leaderboard")
        if metrics != self._registered.metrics:
            self._registered = measured(self.study, metrics)
            for problem in problems(self._registered.beside(board), metrics):
                warnings.warn(problem, stacklevel=2)
        return self._told(self._registered.beside(board))

    def results(self) -> pd.DataFrame:
        """Return one row per cell: its recipe's place, its scores and costs at the largest budget, and its key."""
        return self._told(self._table("results"))

    def trajectories(self) -> pd.DataFrame:
        """Return one row per cell and budget, with scores and costs."""
        return self._told(self._table("trajectories"))

    def curves(self) -> pd.DataFrame:
        """Return learning curves at the horizon: test scores per row, sample count and seed.

        `worst` is the attacker of the release alone, `rational` the one who may also start anew, `baseline` the one
        without the release.
        """
        return self._told(self._table("curves"))

    def budgets(self) -> pd.DataFrame:
        """Return per row and budget, in units of T90, what a release adds."""
        return self._told(self._table("budgets"))

    def attacks(self) -> pd.DataFrame:
        """Return per row and single attack SLC-AUC against the baseline at its best."""
        return self._told(self._table("attacks"))

    def factors(self) -> pd.DataFrame:
        """Return leak and best accuracy where one factor of the attack is held, such as its optimizer."""
        return self._told(self._table("factors"))

    def tasks(self) -> pd.DataFrame:
        """Return the rows over all tasks together."""
        return self._told(self._table("tasks"))

    def coverage(self) -> pd.DataFrame:
        """Return per row and attack how many cells ran, failed, and do not apply."""
        return self._told(self._table("coverage"))

    def failures(self) -> pd.DataFrame:
        """Return the cells that failed, with their reasons."""
        return self._told(self._table("failures"))

    def gates(self) -> pd.DataFrame:
        """Return per row and gate whether it passes, and what fails and would mend it."""
        return self._told(gates_table(self.study, self.suite))

    def verdict(self, defense: str, task: str = "", track: Track = "target") -> Judgement:
        """Return the verdict of one row with the numbers that it rests on.

        The task may be left out where there is one. Raises UserError on a row or task that the run lacks.
        """
        name = self.task(task).name
        there = [s for s in self.study.standings if s.curves.task.name == name and s.field.track == track]
        found = {s.release.label: s for s in there if s.row.mask == "dense"}
        if defense not in found:
            raise unknown("row", defense, found)
        row = found[defense]
        verdict, reason = row.verdict
        numbers = (row.leak, row.speedup(), row.effect.drop, len(row.gain.seeds))
        return Judgement(defense, name, track, verdict, worded(reason, self.suite.objective.name), *numbers)

    @property
    def plot(self) -> Plots:
        """Return what draws the run's figures."""
        return Plots(self._table, self.task, self.suite)

    def task(self, name: str = "") -> Task:
        """Return a task by name, the only one where there is one; raises UserError on any other."""
        known = {task.name: task for task in self.suite.tasks}
        if not name and len(known) == 1:
            return self.suite.tasks[0]
        if not name:
            raise UserError(f"{self.name} has several tasks; name one with task=: {', '.join(known)}")
        if name not in known:
            raise unknown("task", name, known)
        return known[name]

    def _told(self, frame: pd.DataFrame) -> pd.DataFrame:
        return worded_frame(frame, self.suite.objective.name)

    def _table(self, name: str) -> pd.DataFrame:
        if name not in self._held:
            self._held[name] = table(name, self.cells, self.study, self.suite)
        # Whoever writes into a frame may not change what others get.
        return self._held[name].copy()
