"""What an attack adds to a board, as a terminal and a file show it."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from rich.console import RenderableType
from rich.text import Text

from ntbench.report.columns import Column
from ntbench.report.display import count, factor, number, percent, points, records, row_name, with_interval
from ntbench.report.terminal import tabled
from ntbench.report.views import View

COLUMNS = (
    Column("Defense", "defense", row_name, numeric=False),
    Column("Taken, %", "taken", lambda row: percent(row["taken"], 0)),
    Column("Uplift rises by", "rise", lambda row: with_interval(row, "rise", points)),
    Column("Leak before", "leak_before", lambda row: with_interval(row, "leak_before", number, signed=False)),
    Column("Leak", "leak", lambda row: with_interval(row, "leak", number, signed=False)),
)
COSTS = (
    COLUMNS[0],
    Column("Speed-up", "speedup", lambda row: f"{factor(row['speedup_before'])} -> {factor(row['speedup'])}"),
    Column("Steps a run", "steps", lambda row: count(row["steps"])),
    Column("FLOPs a run", "flops", lambda row: count(row["flops"])),
)
NOTE = (
    "Taken: share of sample counts and seeds at which the rational attacker takes this attack on the release. Uplift "
    "in points, paired by seed and test image; the baseline faces the attack too, so that uplift may fall."
)


def added(table: pd.DataFrame, name: str) -> Iterator[RenderableType]:
    """Yield the board of an attack, two tables per task and track, and on how many rows it wins."""
    rows = records(table)
    for task, track in dict.fromkeys((row["task"], row["track"]) for row in rows):
        here = [row for row in rows if (row["task"], row["track"]) == (task, track)]
        title = f"{task}, track {track}"
        yield tabled(View("added", title, COLUMNS, here), title)
        costs = f"{title}: what a run of it costs"
        yield tabled(View("costs", costs, COSTS, here), costs)
    won = [row_name(row) for row in rows if row["wins"]]
    yield Text(NOTE, style="dim")
    yield Text(f"{name} wins on {len(won)} of {len(rows)} rows{': ' if won else ''}{', '.join(won)}", style="bold")
