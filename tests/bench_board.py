"""What a board of many results takes: reading them, working out its rows, and the whole report, in processor seconds.

Results are fabricated; NTBENCH_BENCH_ROWS says how many, 20,000 unless told; the table names the number
beside the goals, which are for more. What a row costs is the difference to a quarter of them, in the same run.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bench_table import figure
from fabricated import COUNTS, SEEDS, outcome, recipe, suite, trajectory
from pytest_benchmark.fixture import BenchmarkFixture
from research_code import measured

from ntbench.engine.manifest import Manifest
from ntbench.engine.reading import checksum
from ntbench.engine.store import Store
from ntbench.suite import Suite
from ntbench.types import Result

ROWS = int(os.environ.get("NTBENCH_BENCH_ROWS", "20000"))
DEFENSES = ("none", "scratch", *(f"ntp-{k}" for k in range(12)))
IMAGES = 200
GOAL = 5.0
SHARES = np.array([0.2, 0.3, 0.5, 0.7, 0.9, 1, 1])
PROGRAM = """
import resource, sys
from pathlib import Path
from rich.console import Console
from ntbench.engine.session import open_run
session = open_run(Path(sys.argv[1]), Console(quiet=True))
results, suite = session.results(), session.suite
if sys.argv[2] == "board":
    from ntbench.measure.board import leaderboard_table
    assert len(leaderboard_table(results, suite))
else:
    from ntbench.report.page import write_report
    write_report(session.folder, results, suite)
used, status = resource.getrusage(resource.RUSAGE_SELF), Path("/proc/self/status")
peak = used.ru_maxrss
if status.exists():  # a process inherits the peak of the one that starts it, but for the kernel's own account
    peak = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
print(used.ru_utime + used.ru_stime, peak / 2**20)
"""


def board(rows: int) -> Suite:
    attacks = max(1, rows // (len(DEFENSES) * len(COUNTS) * len(SEEDS)))
    entries = [{"name": name.split("-")[0], "label": name} for name in DEFENSES]
    labels = [{"name": "finetune", "label": f"a{k}"} for k in range(attacks)]
    return suite(defenses=entries, attacks=labels, paper={"attack": "a0"}, default="a0")


def results(plan: Suite) -> Iterator[Result]:
    random = np.random.default_rng(0)
    for row in DEFENSES:
        gain = {"none": 0.2, "scratch": 0.0}.get(row, 0.1)
        for attack in (entry.label for entry in plan.attacks):
            for samples in COUNTS:
                for seed in plan.seeds:
                    cell = recipe(row, attack, samples, seed, params={"row": row})
                    chance = SHARES * (0.3 + gain + 0.05 * np.log10(samples / 10))
                    right = list(random.random((len(SHARES), IMAGES)) < chance[:, None])
                    run = trajectory([float(r.mean()) for r in right], right=right)
                    yield outcome(cell, run, images=IMAGES, originals=IMAGES)


def stored(folder: Path, rows: int) -> Path:
    plan, cells, sums = board(rows), dict[str, str](), list[tuple[str, str]]()

    def told() -> Iterator[tuple[str, str, str]]:
        for result in results(plan):
            row = (result.cell.key, result.status, result.model_dump_json())
            sums.append((row[0], checksum(*row)))
            cells[json.dumps(result.cell.coordinates)] = row[0]
            yield row

    store = Store(folder)
    store.forget([])  # creates the tables
    # In one transaction: adding one at a time, as a run does, would take minutes.
    with sqlite3.connect(store.database) as connection:
        connection.executemany("INSERT INTO results VALUES (?, ?, ?)", told())
        connection.executemany("INSERT INTO sums VALUES (?, ?)", sums)
    connection.close()
    Manifest(suite=plan, request="", sources={}, cells=cells, asked=tuple(cells.values())).write(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored(tmp_path_factory.mktemp("board"), ROWS)


@pytest.fixture(scope="module")
def quarter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored(tmp_path_factory.mktemp("quarter"), ROWS // 4)


def seconds_to_read(store: Store) -> float:
    begun = time.process_time()
    assert len(store.results())
    return time.process_time() - begun


def test_reading_again_against_reading_rows(benchmark: BenchmarkFixture, folder: Path) -> None:
    """The first reading makes the file that the later ones take, both in one process; objects are built of no row."""
    store, again = Store(folder), []
    (folder / "results.arrow").unlink(missing_ok=True)
    first = seconds_to_read(store)
    measured(benchmark, lambda: again.append(seconds_to_read(store)), rounds=3)
    rows, ratio = len(store.statuses()), first / min(again)
    each = 1e6 * min(again) / rows
    said = f"{each:.1f} us a row, {ratio:.0f} times faster than at first"
    figure(benchmark, f"{rows:,} rows read again", said, "1 us a row")
    assert ratio > GOAL


def spent(folder: Path, what: str) -> tuple[float, float]:
    """Return the processor seconds and the gigabytes that a process of its own takes."""
    said = subprocess.check_output([sys.executable, "-c", PROGRAM, str(folder), what], text=True)
    seconds, gigabytes = map(float, said.split())
    return seconds, gigabytes


@pytest.mark.parametrize(("what", "goal"), [("board", "10 s, 2 GB for a million"), ("report", "30 s for 200,000")])
def test_many_results(benchmark: BenchmarkFixture, folder: Path, what: str, goal: str) -> None:
    took: list[tuple[float, float]] = []
    measured(benchmark, lambda: took.append(spent(folder, what)), rounds=1)
    seconds, gigabytes = took[-1]
    rows = len(Store(folder).statuses())
    figure(benchmark, f"{rows:,} rows to a {what}", f"{seconds:.1f} s of processor, {gigabytes:.2f} GB", goal)


@pytest.mark.parametrize(("made", "goal"), [("read again", "10 s, 2 GB"), ("read at first", "-")])
def test_a_row_more(benchmark: BenchmarkFixture, folder: Path, quarter: Path, made: str, goal: str) -> None:
    """What all rows take over a quarter of them, without what any command takes; it may not rise faster than they."""
    took: dict[Path, tuple[float, float]] = {}

    def work() -> None:
        for place in (quarter, folder):
            if made == "read at first":
                (place / "results.arrow").unlink(missing_ok=True)
            took[place] = min(spent(place, "board") for _ in range(1 if made == "read at first" else 3))

    for place in (quarter, folder):
        Store(place).results()
    measured(benchmark, work, rounds=1)
    few, many = (len(Store(place).statuses()) for place in (quarter, folder))
    each = [(all_of - some) / (many - few) for some, all_of in zip(took[quarter], took[folder], strict=True)]
    seconds, gigabytes = (some + (1e6 - few) * more for some, more in zip(took[quarter], each, strict=True))
    ratio = took[folder][0] / took[quarter][0]
    said = f"{ratio:.1f} times a quarter's, {1e6 * each[0]:.1f} us, {1e6 * each[1]:.1f} kB a row"
    figure(benchmark, f"{many:,} rows to a board, {made}", said, f"{many / few:.0f} times")
    line = f"{seconds:.0f} s of processor, {gigabytes:.1f} GB"
    figure(benchmark, f"a million rows, {made}, drawn out from these", line, goal)
    assert ratio < many / few
