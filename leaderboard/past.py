"""The table of what rows said before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ntbench.report.columns import Column
from ntbench.report.display import MISSING, Record, line, row_name, text, verdict, with_interval
from ntbench.report.views import View

from .history import editions, said
from .published import full
from .schema import Published, Said

TRACK = "target"
COLUMNS = (
    Column("Defense", "defense", row_name, numeric=False),
    Column("Until", "until", lambda row: text(row, "until"), numeric=False),
    Column("Suite", "protocol", lambda row: text(row, "protocol"), numeric=False),
    Column("Leak", "leak", lambda row: _leak(row)),
    Column("Verdict", "verdict", verdict, numeric=False),
    Column("Strongest attack", "attack", lambda row: text(row, "attack"), numeric=False),
    Column("Then", "then", lambda row: text(row, "then")),
    Column("New attacks that carry worst cases since", "since", lambda row: text(row, "since"), numeric=False),
)
NOTE = (
    "Each line is what a row of the track `target` said until that day, the leak that it had then, and which attacks "
    "carry its worst cases since that it had not faced before. A dash: none, so that something else moved it."
)


def past_rows(files: Iterable[Published]) -> list[View]:
    """Return the table of what a task's rows said before, none where no row has a history."""
    lines = [record for file in files for record in _records(file)]
    return [View("history", "What rows said before", COLUMNS, lines, NOTE)] if lines else []


def _records(file: Published) -> Iterator[Record]:
    for past, after in zip(file.history, editions(file)[1:], strict=True):
        later = {(row.track, row.mask): row for row in said(after)}
        for row in (row for row in past.rows if row.track == TRACK):
            then = later.get((row.track, row.mask))
            names = "; ".join(map(line, row.since))
            yield _plain(row) | {
                "defense": file.defense.label,
                "until": past.until,
                "protocol": past.protocol,
                "then": _leak(_plain(then)) if then else MISSING,
                "since": names,
            }


def _plain(row: Said) -> dict[str, object]:
    return {name: full(value) for name, value in row.model_dump(exclude={"since"}).items()}


def _leak(row: Record) -> str:
    # Under five seeds brackets are ranges and no intervals.
    kind = text(row, "interval")
    return with_interval(row, "leak", signed=False) + ("" if kind in ("95%", MISSING) else f" ({kind})")
