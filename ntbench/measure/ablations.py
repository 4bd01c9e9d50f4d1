"""What one hyper-parameter does: rows of a defense that differ from its first row in that alone."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ntbench.measure.permitted import PERMITTED
from ntbench.measure.standing import Results
from ntbench.measure.varied import columns, varied_table
from ntbench.suite import Suite

COLUMNS = columns("changed")


def ablations_table(results: Results, suite: Suite) -> pd.DataFrame:
    """Return leak and source drop of the first row of each defense and of those that change one thing about it.

    The family is the label of that first row, for which `changed` is empty; for others it holds the hyper-parameter and
    its value. The permitted drop is told elsewhere. Drops are fractions; rows without a leak are left out.
    """
    return varied_table(results, suite, "changed", changes(suite)).reset_index(drop=True)


def changes(suite: Suite) -> dict[str, tuple[str, str]]:
    """Return by row the first row of its defense, and what it changes of that: nothing, or one hyper-parameter."""
    found: dict[str, tuple[str, str]] = {}
    first: dict[str, tuple[str, dict[str, Any]]] = {}
    entries = [entry for entry in suite.defenses if not entry.release]
    for name, label, params in ((entry.name, *variant) for entry in entries for variant in entry.variants()):
        family, held = first.setdefault(name, (label, params))
        differing = [key for key in {**held, **params} if held.get(key) != params.get(key)]
        if label == family:
            found[label] = (family, "")
        elif len(differing) == 1 and differing != [PERMITTED] and differing[0] in params:
            found[label] = (family, f"{differing[0]} {_told(params[differing[0]])}")
    return found


def _told(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
