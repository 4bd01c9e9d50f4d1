"""Numbers and names as people read them: percent, intervals, bounds, and a dash where there is no number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from typing import Any

import pandas as pd

from ntbench.types import with_mask

MISSING = "-"
NAME_LENGTH = 32
Record = Mapping[str, Any]


def number(value: Any, digits: int = 2, signed: bool = False) -> str:
    """Return a number with fixed decimals, a dash for None and NaN, and never a negative zero."""
    if _absent(value):
        return MISSING
    if not isfinite(value):
        return "-inf" if value < 0 else "inf"
    text = f"{round(float(value), digits) + 0.0:{'+' if signed else ''}.{digits}f}"
    return text.replace("+", " ").strip() if float(text) == 0 else text


def percent(value: Any, digits: int = 1, signed: bool = False) -> str:
    """Return a fraction as percent, without the sign %."""
    # Published rows have six decimals: what is a tie there is one in full, too.
    return number(None if _absent(value) else round(100 * value, 4), digits, signed)


def points(value: Any, signed: bool = False) -> str:
    """Return a difference of fractions as percentage points."""
    return percent(value, 1, signed)


def factor(value: Any, signed: bool = False) -> str:
    """Return a ratio, with as many decimals as tell it from 1."""
    return number(value, 2 if _absent(value) or abs(value) < 9.995 else 1)


def count(value: Any) -> str:
    """Return a whole number, with commas between thousands and powers of ten from ten million on."""
    if _absent(value) or not isfinite(value):
        return number(value)
    return f"{value:.1e}" if value >= 1e7 else f"{round(value):,}"


def significant(value: Any, signed: bool = False) -> str:
    """Return a number of unknown size with three significant digits, a whole one from a thousand on."""
    if _absent(value) or not isfinite(value):
        return number(value)
    return count(value) if abs(value) >= 1000 else f"{float(value):.3g}"


def seconds(value: Any) -> str:
    """Return seconds, with a decimal below ten."""
    return number(value, 1 if not _absent(value) and value < 10 else 0)


def with_interval(
    record: Record, name: str, show: Callable[..., str] = number, signed: bool = True, ends: str = "[{}, {}]"
) -> str:
    """Return `mean [low, high]`, the mean alone where there is no interval."""
    mean, low, high = (show(record.get(key), signed=signed) for key in (name, f"{name}_low", f"{name}_high"))
    return mean if MISSING in (mean, low, high) else f"{mean} {ends.format(low, high)}"


def with_spread(record: Record, name: str, show: Callable[..., str] = number) -> str:
    """Return `mean ± spread`, the mean alone where there is no spread."""
    mean, spread = (show(record.get(key)) for key in (name, f"{name}_spread"))
    return mean if MISSING in (mean, spread) else f"{mean} ± {spread}"


def some(value: Any) -> str:
    """Return a share as percent, a dash where it is 0."""
    return percent(None if _absent(value) or not value else value)


def bounded(record: Record, name: str) -> str:
    """Return a ratio, with the sign before it where runs ended before they got there and it is a bound."""
    shown, sign = factor(record.get(name)), text(record, f"{name}_bound")
    return shown if MISSING in (shown, sign) else f"{sign} {shown}"


def rank(record: Record) -> str:
    """Return the rank with its interval."""
    place, low, high = (number(record.get(name), 0) for name in ("rank", "rank_low", "rank_high"))
    return place if MISSING in (place, low, high) else f"{place} [{low}, {high}]"


def text(record: Record, name: str) -> str:
    """Return a text on one line, a dash where it is empty."""
    value = record.get(name)
    return line(value) if isinstance(value, str) and value.strip() else MISSING


def yes(record: Record, name: str) -> bool:
    """Return a flag; what is missing is False."""
    value = record.get(name)
    return not _absent(value) and bool(value)


def line(value: object) -> str:
    """Return a text on one line, without characters that cannot be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


def row_name(record: Record) -> str:
    """Return what a row is called: its defense, and whether the attacker keeps the released zeros."""
    name = text(record, "defense")
    return with_mask(name, record.get("mask", ""))


def short(name: str, length: int = NAME_LENGTH) -> str:
    """Return a name for a figure, in which the middle gives way where it is long."""
    name, tail = line(name), length // 3
    return name if len(name) <= length else f"{name[: length - tail - 3]}...{name[-tail:]}"


def verdict(record: Record) -> str:
    """Return the verdict in words; `none` would be read as the row of that name."""
    said = text(record, "verdict")
    return "no verdict" if said == "none" else said


def listed(names: Iterable[str], most: int = 8) -> str:
    """Return names as an enumeration, the end of a long one as a number."""
    names = [line(name) for name in names]
    shown = names if len(names) <= most + 1 else [*names[:most], f"{len(names) - most} more"]
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table by column name."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _absent(value: Any) -> bool:
    return value is None or bool(pd.isna(value))
