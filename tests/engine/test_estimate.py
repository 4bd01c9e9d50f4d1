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


def test_a_step_of_a_slow_network_is_measured_on_few_images(tiny: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def slow(model: object, data: object, batch: int, most: int, clock: object) -> float:
        seen.append(batch)
        return 0.5 * batch

    estimate._measured.cache_clear()
    monkeypatch.setattr(estimate, "_seconds_to_step", slow)
    monkeypatch.setattr(estimate, "_seconds_to_score", lambda *_: 0.0)
    cell = plan(tiny)[0]
    step, _ = estimate._measured(cell.arch.model_dump_json(), cell.objective.model_dump_json(), 16, 128, "cpu")
    assert step == 64 and seen == [estimate._FEW]
    estimate._measured.cache_clear()
