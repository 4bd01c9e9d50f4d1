"""What a long run shows while it works: protections and cells done, failures, speed and the time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ntbench.types import SETTLED, Result


class Bars:
    """Two bars, protections and cells, that finished work moves on."""

    def __init__(self, progress: Progress, protections: int, cells: int, done: int) -> None:
        """Start the bars; `done` cells were finished before."""
        self._progress = progress
        self._protections = progress.add_task("protections", total=protections, note="")
        self._cells = progress.add_task("cells", total=cells, completed=done, note="")
        self._failed = 0

    def protection(self) -> None:
        """Count a finished protection."""
        self._progress.advance(self._protections)

    def cell(self, result: Result) -> None:
        """Count a finished cell and whether it failed."""
        self._failed += result.status not in SETTLED
        task = self._progress.tasks[-1]
        speed = f"{task.speed:.1f} cells/s" if task.speed else ""
        note = f"[red]{self._failed} failed[/red]  {speed}" if self._failed else speed
        self._progress.update(self._cells, advance=1, note=note)


@contextmanager
def bars(console: Console, protections: int, cells: int, done: int) -> Iterator[Bars]:
    """Show the bars for as long as the block runs; where nobody looks at a terminal, only how it ended."""
    columns = (
        TextColumn("{task.description:>11}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, speed_estimate_period=60) as progress:
        yield Bars(progress, protections, cells, done)
