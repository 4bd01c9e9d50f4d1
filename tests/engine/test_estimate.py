"""The estimate of a cell's time: whose clock it reads, and what it adds up."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace

import pytest
from fabricated import in_t90

from ntbench.engine import estimate
from ntbench.engine.estimate import seconds_per_cell
from ntbench.engine.plan import plan
from ntbench.learn.fit import COOLDOWN
from ntbench.suite import Suite


def test_other_load_is_no_part_of_it_and_steps_and_scorings_are(tiny: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    estimate._measured.cache_clear()
    ticks = count(1.0)
    # A step takes a tick, and so does scoring a thirtieth of the images; nothing else may be asked for the time.
    monkeypatch.setattr(estimate, "time", SimpleNamespace(process_time=lambda: next(ticks)))
    cell = plan(tiny)[0]
    ends = in_t90(cell).ends
    steps = (1 - COOLDOWN) * ends[-1] + COOLDOWN * sum(ends)
    assert seconds_per_cell(cell, "cpu") == pytest.approx(steps + 30 * len(ends))
    estimate._measured.cache_clear()
