"""What a long run shows while it works: protections and cells done, failures, speed and the time left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ntbench.types import SETTLED, Result

EVERY = 30.0
"""Seconds between two lines where nobody looks at a terminal."""


def lasting(seconds: float) -> str:
    """Return a duration in the largest unit that it has two of, minutes at least."""
    size, unit = next(
        ((s, unit) for s, unit in ((86400, "days"), (3600, "hours")) if seconds >= 2 * s), (60, "minutes")
    )
    return f"{seconds / size:.{0 if seconds >= 10 * size else 1}f} {unit}"


class Tally:
    """Counts finished work and tells of it: in bars on a terminal, elsewhere in a line every half minute."""

    def __init__(self, console: Console, progress: Progress, protections: int, cells: int, done: int) -> None:
        """Start at nothing; `done` cells were finished before."""
        self._console, self._progress = console, progress
        self._bars = (
            progress.add_task("protections", total=protections, note=""),
            progress.add_task("cells", total=cells, completed=done, note=""),
        )
        self._protections, self._of_protections = 0, protections
        self._cells, self._before, self._of_cells = done, done, cells
        self._failed = 0
        self._start = self._told = time.monotonic()

    def protection(self) -> None:
        """Count a finished protection."""
        self._protections += 1
        self._progress.advance(self._bars[0])
        self._tell("")

    def cell(self, result: Result) -> None:
        """Count a finished cell and whether it failed."""
        self._cells += 1
        self._failed += result.status not in SETTLED
        note = f"{self._failed} failed" if self._failed else ""
        self._progress.update(self._bars[1], advance=1, note=f"[red]{note}[/red]" if note else "")
        self._tell(f", {note}" if note else "")

    def _tell(self, note: str) -> None:
        now = time.monotonic()
        if not self._progress.disable or now - self._told < EVERY:
            return
        self._told = now
        speed = (self._cells - self._before) / (now - self._start)
        left = f", about {lasting((self._of_cells - self._cells) / speed)} left" if speed else ""
        line = f"{self._protections} of {self._of_protections} protections, {self._cells} of {self._of_cells} cells"
        self._console.print(f"{line}{note}{left}", highlight=False)


@contextmanager
def tally(console: Console, protections: int, cells: int, done: int) -> Iterator[Tally]:
    """Show how far the work is for as long as the block runs."""
    columns = (
        TextColumn("{task.description:>11}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    shown = console.is_terminal or console.is_jupyter
    with Progress(*columns, console=console, speed_estimate_period=60, disable=not shown) as progress:
        yield Tally(console, progress, protections, cells, done)
