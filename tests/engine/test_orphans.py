"""Workers leave with the process that started them, whatever they were doing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

IDLE = """
import os, signal, sys, time
import joblib
from ntbench.engine.orphans import leave_with

with joblib.parallel_config("loky", initializer=leave_with, initargs=(os.getpid(),)):
    print(*set(joblib.Parallel(2)(joblib.delayed(os.getpid)() for _ in range(8))), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def gone(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    try:
        return " Z " in stat.read_text()
    except OSError:
        return True


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_workers_without_a_job_leave_with_a_killed_parent() -> None:
    done = subprocess.run([sys.executable, "-c", IDLE], capture_output=True, text=True, timeout=120)
    workers = [int(word) for word in done.stdout.split()]
    assert done.returncode == -signal.SIGKILL and workers
    deadline = time.monotonic() + 60
    while not all(map(gone, workers)):
        assert time.monotonic() < deadline, "loky's own patience is 300 seconds"
        time.sleep(0.1)


def test_a_worker_that_comes_too_late_leaves_at_once() -> None:
    code = "import time; from ntbench.engine.orphans import leave_with; leave_with(-1); time.sleep(60)"
    assert subprocess.run([sys.executable, "-c", code], timeout=50).returncode == 1


def test_a_worker_stays_while_its_parent_is_there() -> None:
    code = f"import time; from ntbench.engine.orphans import leave_with; leave_with({os.getpid()}); time.sleep(2.5)"
    assert subprocess.run([sys.executable, "-c", code], timeout=50).returncode == 0


def test_an_interruption_is_for_the_parent_alone() -> None:
    code = f"import os, signal; from ntbench.engine.orphans import leave_with; leave_with({os.getpid()}); "
    done = subprocess.run(
        [sys.executable, "-c", code + "os.kill(os.getpid(), signal.SIGINT); print('on')"],
        text=True,
        capture_output=True,
        timeout=50,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "on\n", "")
