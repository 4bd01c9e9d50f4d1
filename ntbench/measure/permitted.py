"""How leak depends on the drop of source accuracy that a defense may cost: rows that differ in that alone."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ntbench.measure.standing import Results
from ntbench.measure.varied import FAMILY, columns, varied_table
from ntbench.suite import Suite

PERMITTED = "tolerance"
"""The hyper-parameter of defenses that holds the permitted drop, a fraction."""
COLUMNS = columns("permitted")


def permitted_table(results: Results, suite: Suite) -> pd.DataFrame:
    """Return leak and source drop of rows that differ in the drop that they permit alone, the smallest of it first.

    Such rows are a family: one defense with the parameters that its suite gives it. Drops are fractions; what permits
    one drop alone is no family, and rows without a leak are left out.
    """
    table = varied_table(results, suite, "permitted", families(suite))
    return table.sort_values([*FAMILY, "permitted"], kind="stable", ignore_index=True)


def families(suite: Suite) -> dict[str, tuple[str, float]]:
    """Return by row the family and the permitted drop, of rows to which their suite gives one."""
    found = [(entry.name, *variant) for entry in suite.defenses for variant in entry.variants()]
    return {label: (_family(name, params), params[PERMITTED]) for name, label, params in found if PERMITTED in params}


def _family(name: str, params: dict[str, Any]) -> str:
    return ", ".join([name, *(f"{key} {value}" for key, value in sorted(params.items()) if key != PERMITTED)])
