"""One row of a board: everything that is known of it, and which cells its numbers come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
from rich.console import Group, RenderableType
from rich.text import Text

from ntbench.errors import unknown
from ntbench.report import views
from ntbench.report.columns import Column
from ntbench.report.display import Record, count, number, percent, records, text
from ntbench.report.terminal import facts, tabled
from ntbench.report.views import View
from ntbench.suite import Suite
from ntbench.types import Task

ATTACKERS = {"rational": "Rational attacker", "release": "Release alone", "baseline": "Baseline"}
TAKEN = (
    Column("Samples", "samples", lambda row: count(row["samples"])),
    Column("Attacker", "attacker", lambda row: ATTACKERS[row["attacker"]], numeric=False),
    Column("starts from", "start", lambda row: text(row, "start"), numeric=False),
    Column("with", "attack", lambda row: text(row, "attack"), numeric=False),
    Column("Steps", "steps", lambda row: count(row["steps"])),
    Column("Accuracy, %", "score", lambda row: percent(row["score"])),
    Column("Seeds", "seeds", lambda row: number(row["seeds"], 0)),
    Column("A cell", "key", lambda row: row["key"][:8]),
)
NOTE = (
    "What attackers take at each sample count, by the seeds that take it; steps and accuracy are means over these. "
    "`ntbench explain RUN KEY` tells the way of one cell."
)


def portrait(board: pd.DataFrame, choices: pd.DataFrame, suite: Suite, row: str) -> Iterator[RenderableType]:
    """Yield the tables of one row, in all tasks and tracks that have it; `choices` are those with keys.

    Raises UserError on a row that the board lacks.
    """
    own = board[board["defense"] == row]
    if own.empty:
        raise unknown("row", row, set(board["defense"]))
    for task in suite.tasks:
        part = choices[(choices["defense"] == row) & (choices["task"] == task.name)]
        words = suite.objective.name
        yield from (_listed(view.worded(words)) for view in _views(own, task, suite.axis))
        yield from (Group(tabled(view.worded(words), view.title), "") for view in _taken(part))


def _views(own: pd.DataFrame, task: Task, axis: str) -> list[View]:
    more = [*views.tracks(own, task), *views.claim(own, task), *views.details(own, task)]
    return views.written([views.headline(own, task, axis), *more])


def _listed(view: View) -> RenderableType:
    # A table of a line or two is read more easily as a list.
    lists = [facts({column.heading: column.text(row) for column in view.shown}) for row in view.rows]
    return Group(Text(view.title, style="bold"), *lists, "")


def _taken(choices: pd.DataFrame) -> Iterator[View]:
    for (track, mask), part in choices.groupby(["track", "mask"], sort=False):
        kept = ", mask kept" if mask == "keep" else ""
        yield View(f"taken-{track}-{mask}", f"What is taken in the track {track}{kept}", TAKEN, _lines(part), NOTE)


def _lines(part: pd.DataFrame) -> Sequence[Record]:
    # By count, then attacker in their order, then what most seeds take.
    means = {
        "steps": ("steps", "mean"),
        "score": ("score", "mean"),
        "seeds": ("seed", "nunique"),
        "key": ("key", "first"),
    }
    grouped = part.groupby(["samples", "attacker", "start", "attack", "attack_mask"], sort=False)
    order = list(ATTACKERS)
    rows = records(grouped.agg(**means).reset_index())
    return sorted(rows, key=lambda row: (row["samples"], order.index(row["attacker"]), -row["seeds"]))
