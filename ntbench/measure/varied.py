"""Rows of one defense that differ in one thing: leak and source drop of each, family by family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ntbench.measure.standing import Results, Standing, studied
from ntbench.suite import Suite

FAMILY = ["task", "track", "family", "mask"]
NUMBERS = ("leak", "leak_low", "leak_high", "drop", "drop_low", "drop_high")


def columns(name: str) -> tuple[str, ...]:
    """Return the columns of a table whose rows differ in what a column of some name holds."""
    return (*FAMILY, name, "defense", "verdict", *NUMBERS)


def varied_table(results: Results, suite: Suite, name: str, known: Mapping[str, tuple[str, Any]]) -> pd.DataFrame:
    """Return leak and source drop of rows of which a family and a value are `known`, by label.

    Drops are fractions; rows without a leak are left out, and so are families of a single value.
    """
    there = (standing for standing in studied(results, suite).standings if standing.release.label in known)
    rows = [_row(standing, *known[standing.release.label]) for standing in there]
    table = pd.DataFrame(rows, columns=list(columns(name))).dropna(subset="leak")
    return table[table.groupby(FAMILY)[name].transform("nunique") > 1]


def _row(standing: Standing, family: str, value: Any) -> tuple[Any, ...]:
    place = (standing.curves.task.name, standing.field.track, family, standing.row.mask, value)
    ends = [end for found in (standing.leak, standing.effect.drop) for end in (found.point, found.low, found.high)]
    return (*place, standing.release.label, standing.verdict[0], *ends)
