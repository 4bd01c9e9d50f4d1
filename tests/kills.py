"""Kill a run again and again, at random moments, and count what is lost; run it as `python tests/kills.py 100`.

Each round starts `ntbench run smoke` in one folder, kills the main process, a worker or the whole group after a random
while, and compares: no stored result may vanish, change or stand twice, and ten seconds later no process may be left.
At the end the run is finished and must equal one that nobody disturbed.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from ntbench.types import Result

COMMAND = [sys.executable, "-c", "from ntbench.cli import main; main()", "run", "smoke", "--jobs", "2", "--out"]
LONGEST = 12.0


def stored(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return what a folder holds: by key the scores, which must never change."""
    file = folder / "results.sqlite"
    if not file.exists():
        return {}
    with sqlite3.connect(file) as connection:
        try:
            bodies = [body for (body,) in connection.execute("SELECT body FROM results")]
        except sqlite3.OperationalError:
            return {}
    found = [Result.model_validate_json(body) for body in bodies]
    return {r.cell.key: (r.status, r.trajectory.val, r.trajectory.test, r.trajectory.correct) for r in found}


def family(process: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [process]
    for parent in found:
        with suppress(OSError):
            found += map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    return found


def kill(process: subprocess.Popen[bytes], whom: str) -> list[int]:
    """Kill the main process, one of its descendants or its group, and return everybody who was there."""
    everybody = family(process.pid)
    with suppress(ProcessLookupError):
        if whom == "group":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(process.pid if whom == "main" else random.choice(everybody), signal.SIGKILL)
    return everybody


def alive(processes: list[int]) -> list[int]:
    """Return those that still run."""
    return [
        p for p in processes if Path(f"/proc/{p}/stat").exists() and " Z " not in Path(f"/proc/{p}/stat").read_text()
    ]


def main(rounds: int, seed: int = 0) -> int:
    """Kill so many times and return how often something was lost, changed or left running."""
    random.seed(seed)
    wrong, folder = 0, Path(tempfile.mkdtemp()) / "run"
    for count in range(1, rounds + 1):
        before = stored(folder)
        process = subprocess.Popen([*COMMAND, str(folder)], stdout=subprocess.DEVNULL, start_new_session=True)
        time.sleep(random.uniform(0, LONGEST))
        whom = random.choice(["main", "worker", "group"])
        everybody = kill(process, whom)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=None if whom == "worker" else 10)
        time.sleep(10 if whom != "worker" else 0)
        after, left = stored(folder), [p for p in alive(everybody) if whom != "worker"]
        lost = [key for key, value in before.items() if after.get(key) != value]
        wrong += bool(lost or left)
        print(f"{count}: killed {whom}, {len(after)} results, {len(lost)} lost or changed, {len(left)} left running")
    subprocess.run([*COMMAND, str(folder)], check=True, stdout=subprocess.DEVNULL)
    calm = folder.parent / "calm"
    subprocess.run([*COMMAND, str(calm)], check=True, stdout=subprocess.DEVNULL)
    wrong += stored(folder) != stored(calm)
    print(f"{rounds} kills, {wrong} of them lost or left something")
    return wrong


if __name__ == "__main__":
    sys.exit(bool(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)))
