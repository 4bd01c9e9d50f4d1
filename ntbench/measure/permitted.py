"""How leak depends on the drop of source accuracy that a defense may cost: rows that differ in that alone."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ntbench.measure.standing import Results, Standing, studied
from ntbench.suite import Suite

PERMITTED = "tolerance"
"""The hyper-parameter of defenses that holds the permitted drop, a fraction."""
FAMILY = ["task", "track", "family", "mask"]
COLUMNS = (*FAMILY, "permitted", "defense", "verdict", "leak", "leak_low", "leak_high", "drop", "drop_low", "drop_high")


def permitted_table(results: Results, suite: Suite) -> pd.DataFrame:
    """Return leak and source drop of rows that differ in the drop that they permit alone, the smallest of it first.

    Such rows are a family: one defense with the parameters that its suite gives it. Drops are fractions; what permits
    one drop alone is no family, and rows without a leak are left out.
    """
    known = families(suite)
    there = (standing for standing in studied(results, suite).standings if standing.release.label in known)
    rows = [_row(standing, *known[standing.release.label]) for standing in there]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).dropna(subset="leak")
    several = table.groupby(FAMILY)["permitted"].transform("nunique") > 1
    return table[several].sort_values([*FAMILY, "permitted"], kind="stable", ignore_index=True)


def families(suite: Suite) -> dict[str, tuple[str, float]]:
    """Return by row the family and the permitted drop, of rows to which their suite gives one."""
    found = [(entry.name, *variant) for entry in suite.defenses for variant in entry.variants()]
    return {label: (_family(name, params), params[PERMITTED]) for name, label, params in found if PERMITTED in params}


def _family(name: str, params: dict[str, Any]) -> str:
    return ", ".join([name, *(f"{key} {value}" for key, value in sorted(params.items()) if key != PERMITTED)])


def _row(standing: Standing, family: str, permitted: float) -> tuple[Any, ...]:
    place = (standing.curves.task.name, standing.field.track, family, standing.row.mask, permitted)
    return (*place, standing.release.label, standing.verdict[0], *ends(standing))


def ends(standing: Standing) -> list[float]:
    """Return leak and source drop of a row, each with both ends of its interval."""
    return [end for found in (standing.leak, standing.effect.drop) for end in (found.point, found.low, found.high)]
