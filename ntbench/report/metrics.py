"""Metrics that somebody brought, as people see them: tables of their own, their meaning, and what went wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from ntbench.measure.registered import Metrics, column_names
from ntbench.metric import Metric
from ntbench.report.columns import DEFENSE, Column
from ntbench.report.display import MISSING, Record, line, listed, records, row_name, significant, text, with_interval
from ntbench.report.sentences import brackets, ranking
from ntbench.report.views import View
from ntbench.types import Task

FEW = 2
"""Metrics in one table, whose intervals may be long."""
FAILED = "failed"
ARROWS = {"higher": "\N{UPWARDS ARROW}", "lower": "\N{DOWNWARDS ARROW}"}
DIRECTIONS = ", ".join(f"{arrow} {better} is better" for better, arrow in ARROWS.items()) + "."


def views(board: pd.DataFrame, task: Task, metrics: Metrics) -> list[View]:
    """Return the metrics of the ranked track's rows, a few a table; a number that is missing says whether it failed."""
    rows, found = ranking(board, task), []
    for start in range(0, len(metrics), FEW):
        part = metrics[start : start + FEW]
        note = " ".join(
            [DIRECTIONS, brackets(rows), *(f"{problem}." for problem in problems(pd.DataFrame(rows), part))]
        )
        title = "Metrics of plug-ins" + (" (continued)" if start else "")
        found.append(View(f"metrics-{start}", title, (DEFENSE, *map(_column, part)), rows, note))
    return [view for view in found if not view.empty]


def meanings(metrics: Metrics) -> dict[str, str]:
    """Return what every column of the metrics means."""
    said: dict[str, str] = {}
    for metric in metrics:
        name, end = line(metric.meaning()), "end of the interval; of the range of the seeds where they are under five."
        texts = (f"{name} A metric of a plug-in.", f"Lower {end}", f"Upper {end}", f"Why there is no {metric.name}.")
        said |= dict(zip(column_names(metric.name), texts, strict=True))
    return said


def problems(board: pd.DataFrame, metrics: Metrics) -> Iterator[str]:
    """Yield a sentence for everything that went wrong with a metric, with its rows."""
    for metric in metrics if len(board) else ():
        failed = board[board[f"{metric.name}_error"].fillna("") != ""]
        for error, part in failed.groupby(f"{metric.name}_error", sort=False):
            rows = listed(f"{row_name(row)} ({row['task']}, {row['track']})" for row in records(part))
            yield f"metric {metric.name} has no number for {rows}: {line(error)}"


def _column(metric: type[Metric]) -> Column:
    def shown(record: Record) -> str:
        failed = text(record, f"{metric.name}_error") != MISSING
        return FAILED if failed else with_interval(record, metric.name, significant, signed=False)

    return Column(f"{metric.name} {ARROWS[metric.better]}", metric.name, shown)
