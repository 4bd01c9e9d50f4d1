"""Metrics of foreign code: a process of its own gets the stored numbers of rows, and hands back numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ntbench.engine.apart import Bounds, child, of
from ntbench.engine.frames import message_of
from ntbench.errors import first_line
from ntbench.metric import Answer, Row

ROW_BOUNDS = Bounds()
"""What a metric may take for one row."""


def measure(name: str, rows: Sequence[Row], bounds: Bounds = ROW_BOUNDS) -> Iterator[Answer]:
    """Yield what a foreign metric gives for every row; what ends its process is told of every row behind.

    The bounds hold for each row: who hangs once is not asked again.
    """
    answers: list[Answer] = []
    error = ""
    if not rows:
        return
    try:
        with child(bounds, of("metric", name)) as line:
            for row in rows:
                facts, arrays = message_of(row)
                line.ask({"ask": "measure", "name": name, "rows": len(rows), **facts}, arrays)
                told, _ = line.answer()
                answers.append(Answer(told.get("found"), str(told.get("error", ""))))
    except (ValueError, ArithmeticError, OSError, RuntimeError, MemoryError) as ended:
        error = first_line(str(ended))
    yield from answers
    yield from (Answer(None, error) for _ in rows[len(answers) :])
