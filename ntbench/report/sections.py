"""What a page says about one task, in the order in which people read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from ntbench.report import metrics, views
from ntbench.report.pictures import Picture, task_pictures
from ntbench.report.protocols import protocols
from ntbench.report.sentences import absent, gate_line, ranking, sentence
from ntbench.report.tables import Tables
from ntbench.report.templating import html
from ntbench.report.views import View
from ntbench.report.words import worded
from ntbench.suite import Suite
from ntbench.types import Task

TABLES = ("curves", "budgets", "permitted", "ablations", "attacks", "agreement")
"""The tables that figures of one task are drawn from."""
LINES = {"samples": ("learning_curves", "compute"), "compute": ("compute", "learning_curves")}
"""The figures over either axis, the ranking axis first."""
ALONE = "only the papers' own protocols have run, which have no verdict."


@dataclass(frozen=True)
class Section:
    """One task: a sentence, the table of seven columns, small tables, pictures, and what is one click away.

    `lines` are the pictures that follow the table, that of the ranking axis first.
    """

    task: Task
    sentence: str
    headline: View
    gates: str
    absent: str
    beside: list[View]
    factors: list[View]
    details: list[View]
    pictures: dict[str, Picture]
    lines: tuple[str, ...]

    @property
    def title(self) -> str:
        """Return the task as people read it."""
        return self.task.title

    def shown(self, *names: str) -> list[Picture]:
        """Return those of these pictures that there are."""
        return [self.pictures[name] for name in names if name in self.pictures]


def sections(tables: Tables, suite: Suite) -> Iterator[Section]:
    """Yield the sections of the tasks that have rows."""
    for task in suite.tasks:
        rows, repeated = ranking(tables.leaderboard, task), protocols(tables.protocols, task)
        if rows or repeated:
            levels = views.levels(tables.factors, tables.leaderboard, task)
            factors = views.factors(levels, tables.leaderboard, task)
            lines = {name: views.of_task(getattr(tables, name), task) for name in TABLES}
            yield Section(
                task=task,
                sentence=sentence(tables.leaderboard, task) if rows else f"{task.title}: {ALONE}",
                headline=views.headline(tables.leaderboard, task, suite.axis),
                gates=gate_line(rows),
                absent=absent(tables.coverage, task),
                beside=[
                    *views.tracks(tables.leaderboard, task),
                    *views.claim(tables.leaderboard, task),
                    *views.permitted(tables.permitted, task),
                    *views.ablations(tables.ablations, task),
                    *repeated,
                ],
                factors=factors,
                details=[
                    *views.details(tables.leaderboard, task),
                    *metrics.views(tables.leaderboard, task, tables.metrics),
                    *factors,
                    *views.faced(tables.coverage, task),
                ],
                pictures=task_pictures(
                    rows, lines | {"drawn": tables.drawn}, levels, (task.name, task.title), suite.objective.name
                ),
                lines=LINES[suite.axis],
            )


def summary(board: pd.DataFrame, suite: Suite) -> str:
    """Return of every task the sentence, the table of seven columns and the gates as HTML, to stand in other pages."""
    tasks = [(sentence(board, task), views.headline(board, task, suite.axis)) for task in suite.tasks]
    shown = [(said, view, gate_line(view.rows)) for said, view in tasks if view.rows]
    return worded(html().get_template("summary.html.j2").render(suite=suite, tasks=shown), suite.objective.name)
