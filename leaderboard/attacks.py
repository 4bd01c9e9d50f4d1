"""The published attacks as Markdown: which of them carry the worst cases, and which few would do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from ntbench.measure.carriers import carriers_table
from ntbench.report.columns import Column
from ntbench.report.display import Record, percent, records, text, yes
from ntbench.report.templating import markdown
from ntbench.report.views import View

from .published import Board, boards

COLUMNS = (
    Column("Attack", "attack", lambda row: attack_name(row), numeric=False),
    Column("Taken", "taken", lambda row: percent(row["taken"])),
    Column("Carried alone", "alone", lambda row: percent(row["alone"])),
    Column("In the smallest set", "needed", lambda row: "yes" if yes(row, "needed") else "-", numeric=False),
    Column("Taken on", "rows", lambda row: text(row, "rows"), numeric=False),
)


def render_attacks(folder: Path) -> str:
    """Return which attacks carry the worst cases of the boards below a results folder, a section per board and track.

    Raises UserError where the folder is missing, or a file cannot be read.
    """
    sections = [section for board in boards(folder) for section in _sections(board)]
    return markdown("ntbench.leaderboard").get_template("attacks.md.j2").render(sections=sections)


def attack_name(row: Record) -> str:
    """Return an attack as it stands in tables."""
    return f"{text(row, 'attack')} (mask kept)" if row["mask"] == "keep" else text(row, "attack")


def _sections(board: Board) -> Iterator[dict[str, Any]]:
    rows = records(carriers_table(board.study, board.suite))
    for track, group in groupby(rows, key=lambda row: row["track"]):
        attacks = list(group)
        carrying = [row for row in attacks if row["alone"] > 0]
        needed = [attack_name(row) for row in attacks if yes(row, "needed")]
        yield {
            "protocol": board.suite.protocol,
            "objective": board.suite.objective.name,
            "track": track,
            "view": View("attacks", track, COLUMNS, carrying),
            "idle": "; ".join(attack_name(row) for row in attacks if not row["alone"]),
            "needed": "; ".join(needed),
            "number": len(needed),
            "of": len(attacks),
            "cases": attacks[0]["cases"],
            "free": attacks[0]["free"],
            "shortfall": percent(attacks[0]["shortfall"], 2),
        }
