"""Kill a run again and again, at random moments, and count what is lost; run it as `python tests/kills.py 100`.

A run of `smoke` that nobody disturbs says how long one takes and what must come out. Then each round starts the same
command, kills the main process, a worker or the whole group after a random share of that time, and counts results that
vanished, changed or stand twice, and processes that still run ten seconds later. A folder whose run is over is compared
with the undisturbed one and the next round starts anew, so that kills meet imports, protections, attacks, writing and
the report alike.
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
from collections import Counter
from contextlib import suppress
from pathlib import Path

from ntbench.types import Result

COMMAND = [sys.executable, "-c", "from ntbench.cli import main; main()", "run", "smoke", "--jobs", "2", "--out"]
PATIENCE = 10.0


def stored(folder: Path) -> list[tuple[str, tuple[object, ...]]]:
    """Return what a folder holds: keys, and the scores, which must never change."""
    file = folder / "results.sqlite"
    if not file.exists():
        return []
    with sqlite3.connect(file) as connection:
        try:
            bodies = [body for (body,) in connection.execute("SELECT body FROM results")]
        except sqlite3.OperationalError:
            return []
    found = [Result.model_validate_json(body) for body in bodies]
    return [(r.cell.key, (r.status, r.trajectory.val, r.trajectory.test, r.trajectory.correct)) for r in found]


def family(process: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [process]
    for parent in found:
        with suppress(OSError):
            found += map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    return found


def members(session: int) -> list[int]:
    """Return the processes of a session, those among them that nobody knew when it was killed."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # Behind the name, which may hold anything: state, parent, group, session.
            if int(stat.read_text().rpartition(")")[2].split()[3]) == session:
                found.append(int(stat.parent.name))
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


def run(folder: Path) -> float:
    """Run to the end and return the seconds that it took."""
    start = time.monotonic()
    subprocess.run([*COMMAND, str(folder)], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def disturbed(folder: Path, whom: str, after: float) -> Counter[str]:
    """Start a run, kill after some seconds, and count what went wrong."""
    before = dict(stored(folder))
    process = subprocess.Popen([*COMMAND, str(folder)], stdout=subprocess.DEVNULL, start_new_session=True)
    time.sleep(after)
    everybody = kill(process, whom)
    # A run that lost a worker goes on to its end.
    process.wait()
    time.sleep(PATIENCE)
    held = stored(folder)
    return Counter(
        results=len(held),
        lost=len(before.keys() - dict(held).keys()),
        different=sum(dict(held).get(key, value) != value for key, value in before.items()),
        doubled=len(held) - len(dict(held)),
        orphans=len(alive([*{*everybody, *members(process.pid)}])),
    )


def main(rounds: int, seed: int = 0) -> int:
    """Kill so many times and return how many results were lost, doubled or different, and how many processes stayed."""
    random.seed(seed)
    base, wrong = Path(tempfile.mkdtemp()), Counter[str]()
    length = run(base / "calm")
    wanted = dict(stored(base / "calm"))
    folder = base / "run0"
    print(f"an undisturbed run takes {length:.1f} s and gives {len(wanted)} results", flush=True)
    for count in range(1, rounds + 1):
        whom, after = random.choice(["main", "worker", "group"]), random.uniform(0, length)
        found = disturbed(folder, whom, after)
        over = found.pop("results") == len(wanted)
        wrong += found
        print(f"{count}: killed {whom} after {after:.1f} s{', run over' * over}: {dict(found)}", flush=True)
        if over and random.random() < 0.5:
            wrong["different"] += dict(stored(folder)) != wanted
            folder = base / f"run{count}"
    run(folder)
    wrong["different"] += dict(stored(folder)) != wanted
    print(f"{rounds} kills: {dict(wrong)}")
    return sum(wrong.values())


if __name__ == "__main__":
    sys.exit(bool(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)))
