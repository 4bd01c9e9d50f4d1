"""What a long run says where nobody looks at a terminal, and where somebody does."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from ntbench.engine.progress import EVERY, lasting, tally
from ntbench.types import Cell, Result


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr("ntbench.engine.progress.time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.0 minutes"),
        (90, "1.5 minutes"),
        (870, "14 minutes"),
        (7199, "120 minutes"),
        (7200, "2.0 hours"),
        (86400, "24 hours"),
        (5.4e6, "62 days"),
    ],
)
def test_a_duration_is_told_in_the_unit_that_people_would_say_it_in(seconds: float, said: str) -> None:
    assert lasting(seconds) == said


def test_a_line_every_half_minute_tells_how_far_the_work_is(cell: Cell, clock: SimpleNamespace) -> None:
    written = io.StringIO()
    console = Console(file=written, width=200)
    fine, failed = Result(cell=cell, status="ok"), Result(cell=cell, status="error")
    with tally(console, protections=4, cells=100, done=40) as shown:
        clock.now += EVERY - 1
        shown.protection()
        shown.cell(fine)
        assert written.getvalue() == "", "not before its time"
        clock.now += 1
        shown.cell(failed)
        clock.now += EVERY - 1
        shown.cell(Result(cell=cell, status="unusable"))
        clock.now += 1
        shown.protection()
    # Two cells in 30 seconds leave 58 cells for 14.5 minutes, three in 60 leave 57 for 19.
    assert written.getvalue().splitlines() == [
        "1 of 4 protections, 42 of 100 cells, 1 failed, about 14 minutes left",
        "2 of 4 protections, 43 of 100 cells, about 19 minutes left",
    ]


def test_before_a_cell_is_done_nothing_is_known_of_the_time_left(clock: SimpleNamespace) -> None:
    written = io.StringIO()
    console = Console(file=written, width=200)
    with tally(console, protections=2, cells=9, done=0) as shown:
        clock.now += EVERY
        shown.protection()
    assert written.getvalue() == "1 of 2 protections, 0 of 9 cells\n"


def test_a_terminal_gets_bars_and_no_lines(cell: Cell) -> None:
    written = io.StringIO()
    console = Console(file=written, width=120, force_terminal=True)
    with tally(console, protections=1, cells=2, done=1) as shown:
        shown.protection()
        shown.cell(Result(cell=cell, status="diverged"))
    text = written.getvalue()
    assert "protections" in text and "2/2" in text and "1 failed" in text and "minutes left" not in text
