"""The same number twice: for any number of workers, any order of cells, and after an interruption."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ntbench.engine.grid import Settings, execute
from ntbench.engine.plan import applies, plan
from ntbench.engine.store import Store
from ntbench.measure.tables import TIMING, results_table, trajectories_table
from ntbench.suite import load_suite
from ntbench.types import Result

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def csv(results: Sequence[Result]) -> str:
    """Return both tables as CSV without what a clock or the machine's memory decides."""
    tables = results_table(results).drop(columns=list(TIMING)), trajectories_table(results).drop(columns="seconds")
    return "".join(table.to_csv(index=False) for table in tables)


@pytest.fixture(scope="module")
def reference(smoke: Path) -> str:
    return csv(Store(smoke).results())


def test_the_reference_is_whole(reference: str) -> None:
    cells = plan(load_suite("smoke"))
    lines = io.StringIO(reference).readlines()
    ran = [cell for cell in cells if applies(cell)]
    # A decaying rate is tied to one budget.
    points = sum(len(c.budget.ends) if c.attack.params["schedule"] == "cooldown" else 1 for c in ran)
    assert len(lines) == 2 + len(cells) + points
    assert all(cell.key in reference for cell in cells)
    assert ",ok," in lines[1] and "seconds" not in lines[0]


def test_three_workers_and_another_order_of_cells(reference: str, tmp_path: Path, cache: Path) -> None:
    suite = load_suite("smoke")
    cells = plan(suite)
    random.Random(3).shuffle(cells)
    settings = Settings(folder=tmp_path, cache=cache, limits=suite.limits, jobs=3)
    protections: list[None] = []
    assert csv(list(execute(cells, settings, lambda: protections.append(None)))) == reference
    assert len(protections) == len({cell.protect_key for cell in cells}) == 4


def test_a_kill_in_the_middle_and_the_same_command_again(reference: str, tmp_path: Path, ntbench: Cli) -> None:
    command = [sys.executable, "-c", "from ntbench.cli import app; app()"]
    process = subprocess.Popen(
        [*command, "run", "smoke", "--jobs", "2", "--out", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    store = Store(tmp_path)
    deadline = time.monotonic() + 120
    while len(store.statuses()) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    held = {result.cell.key: result for result in store.results()}
    assert len(held) >= 3
    done = ntbench("run", "smoke", "--jobs", 2, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    results = store.results()
    assert csv(results) == reference
    kept = {result.cell.key: result for result in results if result.cell.key in held}
    assert kept == held, "what was there is not computed again"
