"""Two runs beside each other, as a terminal shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

import pandas as pd
from rich.console import RenderableType
from rich.text import Text

from ntbench.measure.differences import cell_differences, differences_table, recipes_changed
from ntbench.report.columns import Column
from ntbench.report.display import MISSING, Record, number, points, records, row_name, text
from ntbench.report.terminal import facts, tabled
from ntbench.report.views import View
from ntbench.suite import Suite
from ntbench.types import Result

NAMES = {"leak": "leak", "uplift": "uplift, points", "slc": "SLC-AUC", "speedup": "speed-up", "drop": "drop, points"}
TOLD = 12
"""How many differences of recipes are named."""
Side = tuple[Sequence[Result], Suite, pd.DataFrame]


def _shown(row: Record, which: str) -> str:
    show = points if row["number"] in ("uplift", "drop") else number
    ends = [show(row[f"{which}{end}"]) for end in ("", "_low", "_high")]
    return ends[0] if MISSING in ends else "{} [{}, {}]".format(*ends)


COLUMNS = (
    Column("Defense", "defense", row_name, numeric=False),
    Column("Track", "track", lambda row: text(row, "track"), numeric=False),
    Column("Number", "number", lambda row: NAMES[row["number"]], numeric=False),
    Column("Before", "before", lambda row: _shown(row, "before")),
    Column("After", "after", lambda row: _shown(row, "after")),
    Column("Moved?", "what", lambda row: text(row, "what"), numeric=False),
)


def comparison(before: Side, after: Side) -> Iterator[RenderableType]:
    """Yield what differs in the recipes, which shared cells differ, the verdicts that changed, and what moved."""
    changed = [*recipes_changed(before[:2], after[:2])]
    if changed:
        yield Text("What differs in the recipes", style="bold")
        yield facts({name: f"{one} -> {other}" for name, one, other in islice(changed, TOLD)})
        yield f"and {len(changed) - TOLD} more" if len(changed) > TOLD else ""
    yield Text(_shared(before[0], after[0]))
    yield facts(dict(_verdicts(before[2], after[2])))
    rows = records(differences_table(before[2], after[2]))
    for task in dict.fromkeys(row["task"] for row in rows):
        moved = [row for row in rows if row["task"] == task and row["what"] != "same"]
        if moved:
            yield tabled(View("moved", task, COLUMNS, moved), task)
    counts = Counter(row["what"] for row in rows)
    yield Text("; ".join(f"{said}: {count} numbers" for said, count in counts.most_common()) or "no number in common")


def _shared(before: Sequence[Result], after: Sequence[Result]) -> str:
    held = {result.cell.key: result for result in before}
    pairs = [(held[result.cell.key], result) for result in after if result.cell.key in held]
    apart = [other.cell.key for one, other in pairs if any(cell_differences(one, other))]
    named = f", first {apart[0]}: the same recipe gave another result" if apart else ""
    return f"{len(pairs)} cells of {len(before)} and {len(after)} are the same recipes; {len(apart)} differ{named}"


def _verdicts(before: pd.DataFrame, after: pd.DataFrame) -> Iterator[tuple[str, str]]:
    names = ["task", "track", "defense", "mask"]
    held = before.set_index(names)["verdict"].to_dict()
    for row in records(after):
        place = tuple(row[name] for name in names)
        if place in held and held[place] != row["verdict"]:
            said = f"{row_name(row)}, {row['task']}, {row['track']}"
            yield said, f"verdict {held[place] or MISSING} -> {row['verdict'] or MISSING}"
