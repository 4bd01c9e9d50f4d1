"""What a command tells at the end of a run."""

from __future__ import annotations

from collections.abc import Sequence

from ntbench.errors import first_line
from ntbench.types import Recipe, Result, columns_of

NAMED = 10
"""How many failed cells are named on a terminal."""


class Told(Recipe):
    """What a command told when it made the page of a stamp: the board in colours, and the cells that failed."""

    stamp: str
    board: str = ""
    failures: str = ""


def failures(results: Sequence[Result]) -> str:
    """Return the cells that failed, with their reasons, or an empty string."""
    failed = columns_of(results).failed
    if not failed:
        return ""
    named = failed[:NAMED]
    lines = [f"  {r.status}: {', '.join(map(str, r.cell.coordinates[:6]))}: {first_line(r.error)}" for r in named]
    more = [f"  and {len(failed) - NAMED} more"] if len(failed) > NAMED else []
    head = f"{len(failed)} of {len(results)} cells failed; `--retry-failed` runs them again:"
    return "\n".join([head, *lines, *more])
