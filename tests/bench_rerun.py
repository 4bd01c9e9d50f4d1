"""How long a finished run takes to run again, how long the help takes, and that neither loads torch."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from bench_table import figure
from pytest_benchmark.fixture import BenchmarkFixture
from research_code import measured

GOAL_SECONDS = 3.0
COMMAND = str(Path(sys.executable).with_name("ntbench"))
PROBE = """
import sys
from ntbench.cli import app
app(sys.argv[1:], standalone_mode=False)
assert "torch" not in sys.modules, "torch was imported"
"""


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def seconds_of(*command: str) -> float:
    """Return the processor seconds that a command takes, which other processes disturb less than the clock."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    run(*command)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def again(benchmark: BenchmarkFixture, suite: str, folder: str) -> None:
    arguments = ("run", suite, "--out", folder)
    assert "nothing to do" in run(COMMAND, *arguments)
    report(f"{suite} again", benchmark, COMMAND, *arguments)
    run(sys.executable, "-c", PROBE, *arguments)
    figure(benchmark, f"finished {suite} again", f"{seconds_of(COMMAND, *arguments):.2f} s of processor", "0.5 s")


def report(what: str, benchmark: BenchmarkFixture, *command: str) -> None:
    seconds = measured(benchmark, partial(run, *command), rounds=5).median
    print(f"\n{what}: {seconds:.2f} s; load {os.getloadavg()[0]:.1f}")
    assert seconds < GOAL_SECONDS


def test_smoke_again(benchmark: BenchmarkFixture, smoke: Path) -> None:
    again(benchmark, "smoke", str(smoke))


def test_quick_again(benchmark: BenchmarkFixture) -> None:
    folder = os.environ.get("NTBENCH_BENCH_RUN")
    if not folder:
        pytest.skip("name the folder of a finished quick run in NTBENCH_BENCH_RUN")
    left = run(COMMAND, "run", "quick", "--out", folder, "--dry-run")
    assert left.startswith("0 of "), f"finish this run first, with the methods as they are now: {left}"
    again(benchmark, "quick", folder)


def test_list(benchmark: BenchmarkFixture) -> None:
    assert "finetune" in run(COMMAND, "list")
    report("ntbench list", benchmark, COMMAND, "list")
    run(sys.executable, "-c", PROBE, "list")
    figure(benchmark, "ntbench list", f"{seconds_of(COMMAND, 'list'):.2f} s of processor", "2 s")


def test_help(benchmark: BenchmarkFixture) -> None:
    assert "Usage" in run(COMMAND, "--help")
    report("ntbench --help", benchmark, COMMAND, "--help")
    run(sys.executable, "-c", PROBE, "--help")


def test_importing_the_command_line(benchmark: BenchmarkFixture) -> None:
    program = "import sys, ntbench.cli; assert 'torch' not in sys.modules"
    report("import ntbench.cli", benchmark, sys.executable, "-c", program)
