"""What a domain of somebody's own keeps: it builds what it should, and the same images twice."""

from __future__ import annotations

from functools import partial

from rich.console import Console

from ntbench.domains import PARTS, Dataset, Raw
from ntbench.engine.limits import guarded

SIZE = 16
SECONDS = 600.0


def examine_domain(cls: type[Dataset], console: Console) -> bool:
    """Build a domain twice at 16 pixels, print what comes of it, and return whether all is well."""
    console.print(f"domain {cls.name}", style="bold", highlight=False)
    built: list[Raw] = []
    status, error = guarded(SECONDS, lambda: built.extend(map(partial(cls.family().build, cls.name), (SIZE, SIZE))))
    if status == "ok" and _bytes(built[0]) != _bytes(built[1]):
        status, error = "error", "builds other images the second time; take random numbers from a seed of its own"
    counts = ", ".join(f"{len(getattr(built[0], part)[1])} {part}" for part in PARTS) if status == "ok" else ""
    told = f"builds the same images twice: {counts}, {built[0].classes} classes" if status == "ok" else error
    style = "green" if status == "ok" else "red"
    console.print(f"  {told}", style=style, highlight=False, markup=False, soft_wrap=True)
    return status == "ok"


def _bytes(raw: Raw) -> list[bytes]:
    return [array.tobytes() for part in PARTS for array in getattr(raw, part)]
