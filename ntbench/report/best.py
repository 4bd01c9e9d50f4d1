"""Which rows of a column are best, and which the data do not tell apart from the best."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from ntbench.report.columns import Column, dimmed
from ntbench.report.display import Record, text


def best_and_ties(rows: Sequence[Record], column: Column) -> tuple[set[int], set[int]]:
    """Return the places of the rows with the least number of a column, and of those whose interval overlaps theirs.

    Controls, baselines, rows without a rank of their own and those that lost their source take no part. Rows that read
    the same as the best are best as well. Both are empty where fewer than two rows have a number, or the least is no
    merit.
    """
    able = [i for i, row in enumerate(rows) if column.least and _able(row) and isfinite(_value(row, column.least))]
    if len(able) < 2:
        return set(), set()
    least = min(able, key=lambda i: _value(rows[i], column.least))
    said = _mean(column.text(rows[least]))
    best = {i for i in able if _mean(column.text(rows[i])) == said}
    end = _value(rows[least], f"{column.least}_high")
    return best, {i for i in able if _value(rows[i], f"{column.least}_low") <= end} - best


def _able(row: Record) -> bool:
    return not dimmed(row) and not text(row, "reason").startswith("unusable")


def _mean(said: str) -> str:
    return said.partition(" [")[0]


def _value(row: Record, name: str) -> float:
    value: Any = row.get(name)
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
