"""The leaderboard as people read it: percent, intervals, lower bounds, and a dash where there is no number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

MISSING = "-"
NAME_LENGTH = 24
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column of a rendered table: its group and heading, the field that the glossary explains, and its text."""

    group: str
    heading: str
    field: str
    text: Callable[[Record], str]
    numeric: bool = True


def number(value: Any, digits: int = 2, signed: bool = False) -> str:
    """Return a number with fixed decimals, a dash for None and NaN, and never a negative zero."""
    if value is None or pd.isna(value):
        return MISSING
    text = f"{round(float(value), digits) + 0.0:{'+' if signed else ''}.{digits}f}"
    return text.replace("+", " ").strip() if float(text) == 0 else text


def percent(value: Any, digits: int = 1, signed: bool = False) -> str:
    """Return a fraction as percent, without the sign %."""
    return number(None if value is None or pd.isna(value) else 100 * value, digits, signed)


def with_interval(record: Record, name: str, show: Callable[..., str] = number, signed: bool = True) -> str:
    """Return `mean [low, high]`, the mean alone where there is no interval."""
    mean, low, high = (show(record.get(key), signed=signed) for key in (name, f"{name}_low", f"{name}_high"))
    return mean if MISSING in (mean, low, high) else f"{mean} [{low}, {high}]"


def ratio(record: Record, name: str) -> str:
    """Return an overhead, with `>` where at least half of the seeds never got there."""
    value, censored = record.get(name), record.get(f"{name}_censored")
    text = number(value, 2 if value is not None and not pd.isna(value) and value < 1 else 1)
    return f"> {text}" if text != MISSING and not pd.isna(censored) and censored >= 0.5 else text


def rank(record: Record) -> str:
    """Return the rank with its interval."""
    place, low, high = (number(record.get(name), 0) for name in ("rank", "rank_low", "rank_high"))
    return place if MISSING in (place, low, high) else f"{place} [{low}, {high}]"


def row_name(defense: str, mask: str) -> str:
    """Return the name of a row in figures, where the mask has no column of its own and room is short."""
    short = defense if len(defense) <= NAME_LENGTH else f"{defense[: NAME_LENGTH - 3]}..."
    return f"{short} (mask kept)" if mask == "keep" else short


def _yes(record: Record, name: str) -> str:
    return "yes" if record.get(name) is True or record.get(name) == 1 else "no"


def _failed(record: Record) -> str:
    return f"{number(record.get('failed'), 0)}/{number(record.get('cells'), 0)}"


def _text(record: Record, name: str) -> str:
    value = record.get(name)
    return str(value) if isinstance(value, str) and value else MISSING


def letters(needs: Any) -> str:
    """Return which data a defense asks for by initials: S source labels, T target labels, t target images."""
    return "+".join(_LETTERS.get(part, part) for part in str(needs).split(", ")) if needs else MISSING


PAPER, GRID, AUTO, WORST, DEFENDER = "Paper setting", "Grid", "Auto", "Worst case", "The defender pays"
_LETTERS = {"source labels": "S", "target labels": "T", "target images": "t", "nothing": "none"}


def _area(group: str, name: str, interval: bool = True) -> Column:
    if interval:
        return Column(group, "SLC-AUC", name, lambda r: with_interval(r, name))
    return Column(group, "SLC-AUC", name, lambda r: number(r.get(name), signed=True))


def _named(group: str, heading: str, name: str) -> Column:
    return Column(group, heading, name, lambda r: _text(r, name), numeric=False)


def _steps(group: str, name: str) -> Column:
    return Column(group, "steps", name, lambda r: number(r.get(name), 0))


COLUMNS: dict[str, Column] = {
    "rank": Column("", "Rank", "rank", rank),
    "defense": _named("", "Defense", "defense"),
    "holds": Column("", "Holds", "holds", lambda r: _yes(r, "holds"), numeric=False),
    "mask": _named("", "Mask", "mask"),
    "data": Column("", "Data", "needs", lambda r: letters(r.get("needs")), numeric=False),
    "paper": _area(PAPER, "paper_slc", interval=False),
    "paper_slc": _area(PAPER, "paper_slc"),
    "paper_overhead": Column(PAPER, "overhead", "paper_overhead", lambda r: ratio(r, "paper_overhead")),
    "paper_attack": _named(PAPER, "attack", "paper_attack"),
    "grid": _area(GRID, "grid_slc", interval=False),
    "grid_slc": _area(GRID, "grid_slc"),
    "grid_attack": _named(GRID, "attack", "grid_attack"),
    "grid_steps": _steps(GRID, "grid_steps"),
    "auto": _area(AUTO, "auto_slc", interval=False),
    "auto_slc": _area(AUTO, "auto_slc"),
    "auto_choice": _named(AUTO, "choice", "auto_choice"),
    "auto_steps": _steps(AUTO, "auto_steps"),
    "auto_gap": Column(
        AUTO, "above the grid, points", "auto_gap", lambda r: with_interval(r, "auto_gap", percent, signed=True)
    ),
    "worst": _area(WORST, "slc", interval=False),
    "slc": _area(WORST, "slc"),
    "slc_norm": Column(WORST, "mean gap, points", "slc_norm", lambda r: percent(r.get("slc_norm"), signed=True)),
    "overhead": Column(WORST, "overhead", "overhead_steps_90", lambda r: ratio(r, "overhead_steps_90")),
    "worst_attack": _named(WORST, "attack", "worst_attack"),
    "worst_steps": _steps(WORST, "worst_steps"),
    "needs": _named(DEFENDER, "data needed", "needs"),
    "before": Column(DEFENDER, "source before, %", "source_before", lambda r: percent(r.get("source_before"))),
    "source": Column(DEFENDER, "source accuracy, %", "source_after", lambda r: percent(r.get("source_after"))),
    "drop": Column(DEFENDER, "drop, points", "drop", lambda r: with_interval(r, "drop", percent, signed=False)),
    "cost": Column(
        DEFENDER, "time, x pretraining", "protect_seconds_ratio", lambda r: number(r.get("protect_seconds_ratio"), 1)
    ),
    "zero_shot": Column("", "Zero-shot target, %", "zero_shot", lambda r: percent(r.get("zero_shot"))),
    "sparsity": Column("", "Zeros, %", "sparsity", lambda r: percent(r.get("sparsity"))),
    "failed": Column("", "Failed cells", "failed", _failed),
    "note": _named("", "Note", "note"),
}
# Where room is short, only the number that counts has its interval.
_SHORT = ("paper", "grid", "auto", "slc", "overhead", "worst_attack", "worst_steps")
NARROW = ("rank", "defense", "mask", "data", *_SHORT, "drop", "holds")
_LONG = ("paper_slc", "paper_overhead", "grid", "auto", "slc", "overhead", "worst_attack", "worst_steps")
NOTED = ("rank", "defense", "mask", *_LONG, "needs", "before", "source", "drop", "zero_shot", "holds", "note")
WIDE = tuple(name for name in COLUMNS if name not in ("needs", "paper", "grid", "auto", "worst", "note"))


def cells(record: Record, names: tuple[str, ...] = tuple(COLUMNS)) -> dict[str, str]:
    """Return the texts of one row by column name."""
    return {name: COLUMNS[name].text(record) for name in names}


def heading(name: str) -> str:
    """Return a column's heading with its group, for tables of one header line."""
    column = COLUMNS[name]
    return f"{column.group}: {column.heading}" if column.group else column.heading


def filled(rows: Sequence[Record], names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns that say something about at least one row."""
    return tuple(name for name in names if any(COLUMNS[name].text(row) != MISSING for row in rows))


def header_groups(names: tuple[str, ...]) -> list[tuple[str, int]]:
    """Return the runs of columns that share a group, with their lengths."""
    return [(group, len(list(run))) for group, run in groupby(COLUMNS[name].group for name in names)]
