"""The leaderboard as people read it: percent, intervals, lower bounds, and a dash where there is no number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


PAPER, WORST, DEFENDER = "Paper setting", "Worst case", "The defender pays"
COLUMNS: dict[str, Column] = {
    "rank": Column("", "Rank", "rank", rank),
    "defense": Column("", "Defense", "defense", lambda r: _text(r, "defense"), numeric=False),
    "holds": Column("", "Holds", "holds", lambda r: _yes(r, "holds"), numeric=False),
    "mask": Column("", "Mask", "mask", lambda r: _text(r, "mask"), numeric=False),
    "paper_slc": Column(PAPER, "SLC-AUC", "paper_slc", lambda r: with_interval(r, "paper_slc")),
    "paper_overhead": Column(PAPER, "overhead", "paper_overhead", lambda r: ratio(r, "paper_overhead")),
    "paper_attack": Column(PAPER, "attack", "paper_attack", lambda r: _text(r, "paper_attack"), numeric=False),
    "slc": Column(WORST, "SLC-AUC", "slc", lambda r: with_interval(r, "slc")),
    "slc_norm": Column(WORST, "mean gap, points", "slc_norm", lambda r: percent(r.get("slc_norm"), signed=True)),
    "overhead": Column(WORST, "overhead", "overhead_steps_90", lambda r: ratio(r, "overhead_steps_90")),
    "worst_attack": Column(WORST, "attack", "worst_attack", lambda r: _text(r, "worst_attack"), numeric=False),
    "source": Column(DEFENDER, "source accuracy, %", "source_after", lambda r: percent(r.get("source_after"))),
    "drop": Column(DEFENDER, "drop, points", "drop", lambda r: with_interval(r, "drop", percent, signed=False)),
    "cost": Column(
        DEFENDER, "time, x pretraining", "protect_seconds_ratio", lambda r: number(r.get("protect_seconds_ratio"), 1)
    ),
    "zero_shot": Column("", "Zero-shot target, %", "zero_shot", lambda r: percent(r.get("zero_shot"))),
    "sparsity": Column("", "Zeros, %", "sparsity", lambda r: percent(r.get("sparsity"))),
    "failed": Column("", "Failed cells", "failed", _failed),
    "note": Column("", "Note", "note", lambda r: _text(r, "note"), numeric=False),
}
NARROW = ("rank", "defense", "mask", "paper_slc", "paper_overhead", "slc", "overhead", "drop", "holds")
NOTED = (*NARROW, "note")


def cells(record: Record, names: tuple[str, ...] = tuple(COLUMNS)) -> dict[str, str]:
    """Return the texts of one row by column name."""
    return {name: COLUMNS[name].text(record) for name in names}


def heading(name: str) -> str:
    """Return a column's heading with its group, for tables of one header line."""
    column = COLUMNS[name]
    return f"{column.group}: {column.heading}" if column.group else column.heading


def header_groups(names: tuple[str, ...]) -> list[tuple[str, int]]:
    """Return the runs of columns that share a group, with their lengths."""
    return [(group, len(list(run))) for group, run in groupby(COLUMNS[name].group for name in names)]
