"""Published boards as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ntbench.measure.agreement import agreement_table
from ntbench.measure.tables import coverage_table
from ntbench.report.sentences import absent, correlations, defended, gate_line, ranking, sentence
from ntbench.report.templating import markdown
from ntbench.report.views import View, claim, details, headline, tracks
from ntbench.types import CLASSIFICATION, Task

from .checks import checks_of
from .literature import beside
from .past import past_rows
from .published import Board, boards
from .rankings import Side, compared
from .schema import Published

UNCHECKED = " *"
"""What stands behind the name of a row of which nobody has recomputed a cell."""


def render(folder: Path) -> str:
    """Return the published boards below a results folder as one page, a section per suite and task.

    Raises UserError where the folder is missing, or a file cannot be read.
    """
    held = boards(folder)
    sections = [section for board in held for section in _sections(board, folder.parent)]
    alike = list(compared(Side(board, task) for board in held for task in _tasks(board)))
    return markdown("ntbench.leaderboard").get_template("README.md.j2").render(sections=sections, alike=alike)


def _tasks(board: Board) -> list[Task]:
    return [task for task in board.suite.tasks if _rows(board, task)]


def _sections(board: Board, leaderboard: Path) -> Iterator[dict[str, Any]]:
    checks, coverage = checks_of(board, leaderboard), coverage_table(board.results)
    for task in _tasks(board):
        views = [view for check in checks for view in check.views(task)]
        told = {"checks": views, "absent": absent(coverage, task)}
        yield _section(board, task) | told


def _section(board: Board, task: Task) -> dict[str, Any]:
    table, files = board.table, _rows(board, task)
    rows = ranking(table, task)
    named = table.assign(defense=[_marked(name, files) for name in table["defense"]])
    board_view = headline(named, task, board.suite.axis)
    return {
        "suite": board.suite,
        "task": task,
        "sentence": sentence(table, task),
        "headline": board_view,
        "gates": gate_line(rows),
        "agreement": _agreement(board, task),
        "beside": [*tracks(named, task), *_drawn(named, task), *claim(named, task), *past_rows(files.values())],
        "literature": list(beside(board.suite, task, rows)),
        "setting": _setting(board, task),
        "checked": _checked(files),
        "unchecked": any(UNCHECKED in row["defense"] for row in board_view.rows),
    }


def _drawn(table: pd.DataFrame, task: Task) -> list[View]:
    """Return what protecting does to the source where models make images: their scores may say another thing."""
    there = table["frechet"].notna().any()
    return [view for view in details(table, task) if view.key == "keeps"] if there else []


def _agreement(board: Board, task: Task) -> str:
    """Return how well scores after attacks agree with distances of what attackers' models make, where they make any."""
    table = agreement_table(result for result in board.results if result.cell.task.name == task.name)
    return correlations(table[table["track"] == "target"])


def _rows(board: Board, task: Task) -> dict[str, Published]:
    return {file.defense.label: file for file in board.files.values() if file.task.name == task.name}


def _marked(name: str, files: Mapping[str, Published]) -> str:
    return name if name not in files or files[name].verified else f"{name}{UNCHECKED}"


def _setting(board: Board, task: Task) -> dict[str, str]:
    suite = board.suite
    told = [] if suite.objective == CLASSIFICATION else [suite.objective.name]
    files = _rows(board, task).values()
    return {
        "network": ", ".join([suite.arch.name, *told]),
        "defended": defended(task),
        "counts": ", ".join(str(level.samples) for level in task.levels),
        "horizon": f"{suite.horizon:g}",
        "seeds": ", ".join(map(str, suite.seeds)),
        "attacks": str(len({(attack.spec.label, attack.spec.mask) for file in files for attack in file.attacks})),
        "cells": f"{sum(len(file.cells) for file in files):,}",
    }


def _checked(files: Mapping[str, Published]) -> list[str]:
    found = []
    for name, file in sorted(files.items()):
        cells = {key for mark in file.verified for key in mark.cells}
        if cells:
            last = max(file.verified, key=lambda mark: mark.date)
            found.append(
                f"{name}: {len(cells)} of {len(file.cells)} cells, last with version {last.version} on {last.date}"
            )
    return found
