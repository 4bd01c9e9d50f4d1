from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ntbench.engine.store import Store
from ntbench.errors import UserError
from ntbench.types import Cell, Result, Trajectory

PREPARE = """
import sys
from pathlib import Path
from ntbench.engine.store import Store
from ntbench.types import Result
store = Store(Path(sys.argv[1]))
template = Result.model_validate_json(sys.stdin.read())
def numbered(i):
    return template.model_copy(update={"cell": template.cell.model_copy(update={"seed": i})})
"""


def result(cell: Cell, seed: int = 0) -> Result:
    # Large enough for several pages of the database, so that a torn write would show.
    points = tuple(range(1, 1501))
    halves = (0.5,) * len(points)
    held = {"correct": ("gMA=",) * len(points), "own": halves}
    path = Trajectory(step=points, samples=points, flops=points, seconds=halves, val=halves, test=halves, **held)
    return Result(cell=cell.model_copy(update={"seed": seed}), status="ok", trajectory=path)


def start(code: str, folder: Path, template: Result) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-c", PREPARE + code, str(folder)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin
    process.stdin.write(template.model_dump_json())
    process.stdin.close()
    process.stdin = None
    return process


def text(content: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_text(content)

    return make


def test_nothing_is_created_before_the_first_write(tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    assert store.statuses() == {} and store.results() == []
    assert not (tmp_path / "run").exists()


def test_results_come_back_as_they_were_and_in_the_order_of_keys(tmp_path: Path, cell: Cell) -> None:
    store = Store(tmp_path)
    results = [result(cell, seed) for seed in range(5)]
    for item in results:
        store.add(item)
    assert Store(tmp_path).results() == sorted(results, key=lambda item: item.cell.key)
    assert store.statuses() == {item.cell.key: "ok" for item in results}


def test_a_second_result_of_a_key_replaces_the_first(tmp_path: Path, cell: Cell) -> None:
    store = Store(tmp_path)
    store.add(Result(cell=cell, status="error", error="x"))
    store.add(result(cell))
    assert store.statuses() == {cell.key: "ok"}


def test_forgotten_results_are_gone_and_the_others_stay(tmp_path: Path, cell: Cell) -> None:
    store = Store(tmp_path)
    results = [result(cell, seed) for seed in range(3)]
    for item in results:
        store.add(item)
    store.forget([results[1].cell.key, "unheard of"])
    assert store.statuses().keys() == {results[0].cell.key, results[2].cell.key}


def test_after_kill_9_every_acknowledged_result_is_whole_and_no_other_is_there_in_part(
    tmp_path: Path, cell: Cell
) -> None:
    code = "i = len(store.statuses())\nwhile True:\n    store.add(numbered(i)); print(i); i += 1\n"
    acknowledged = 0
    for attempt in range(4):
        with start(code, tmp_path, result(cell)) as process:
            assert process.stdout
            first = process.stdout.readline()
            time.sleep(0.03 * attempt)
            process.kill()
            acknowledged = int((first + process.stdout.read()).split()[-1]) + 1
        held = Store(tmp_path).results()
        assert len(held) in (acknowledged, acknowledged + 1)
        assert {item.cell.key: item for item in held} == {
            item.cell.key: item for item in (result(cell, seed) for seed in range(len(held)))
        }
    assert acknowledged >= 4


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path: Path, cell: Cell) -> None:
    holder = start("with store.writing():\n    print('held'); import time; time.sleep(60)\n", tmp_path, result(cell))
    try:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=r"another process is writing to .*; wait for it or give another --out"),
            Store(tmp_path).writing(),
        ):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with Store(tmp_path).writing():
        Store(tmp_path).add(result(cell))


@pytest.mark.parametrize("damage", ["garbage", "torn", "another table"])
def test_a_damaged_database_is_told_with_its_remedy(tmp_path: Path, cell: Cell, damage: str) -> None:
    store = Store(tmp_path)
    store.add(result(cell))
    content = store.database.read_bytes()
    if damage == "garbage":
        store.database.write_bytes(b"nothing like a database " * 400)
    elif damage == "torn":
        store.database.write_bytes(content[:100] + b"\xff" * (len(content) - 100))
    else:
        store.database.unlink()
        with sqlite3.connect(store.database) as connection:
            connection.execute("CREATE TABLE results (name TEXT)")
        connection.close()
    with pytest.raises(UserError) as caught:
        store.statuses()
        store.results()
    assert str(store.database) in str(caught.value) and "start a new folder with --out" in str(caught.value)


@pytest.mark.parametrize(("field", "value"), [("schema_version", 1), ("status", "fine"), ("invented", 1), ("cell", {})])
def test_results_of_another_schema_are_told_with_their_remedy(
    tmp_path: Path, cell: Cell, field: str, value: object
) -> None:
    store = Store(tmp_path)
    store.add(result(cell))
    body = json.loads(result(cell).model_dump_json()) | {field: value}
    with sqlite3.connect(store.database) as connection:
        connection.execute("UPDATE results SET body = ?", (json.dumps(body),))
    connection.close()
    with pytest.raises(UserError, match=r"results.sqlite.* another schema .*--out"):
        store.results()


FULL = """
import resource
store.add(numbered(0))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
from ntbench.errors import UserError
try:
    for i in range(1, 50):
        store.add(numbered(i))
        print(i)
except UserError as error:
    print(error)
"""


def test_a_full_disk_is_told_and_costs_nothing_that_was_stored(tmp_path: Path, cell: Cell) -> None:
    output, errors = start(FULL, tmp_path, result(cell)).communicate()
    *numbers, message = output.splitlines()
    assert "results.sqlite" in message and "free disk space" in message, output + errors
    held = Store(tmp_path).results()
    assert len(held) == 1 + len(numbers)
    assert {item.cell.seed for item in held} == set(range(len(held)))


FULL_ARTIFACT = """
import resource
from ntbench.errors import UserError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    store.artifact("abc", lambda path: path.write_bytes(b"x" * 10_000))
except UserError as error:
    print(error)
"""


def test_a_full_disk_leaves_no_torn_artifact(tmp_path: Path, cell: Cell) -> None:
    output, errors = start(FULL_ARTIFACT, tmp_path, result(cell)).communicate()
    assert "cannot be written" in output, errors
    assert not Store(tmp_path).artifact_path("abc").exists()
    assert Store(tmp_path).artifact("abc", text("now")).read_text() == "now"


def test_a_folder_that_cannot_be_made_or_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="cannot be written"), Store(folder).writing():
            pass

    def refuse(*arguments: object, **options: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match=r"cannot be written: .*Permission denied"), Store(tmp_path).writing():
        pass


MAKING = """
import os, time
def make(path):
    with open(Path(sys.argv[1]) / "made.log", "a") as log:
        log.write("x")
    path.write_text("half")
    time.sleep(0.3)
    path.write_text("whole")
print(store.artifact("abc", make).read_text())
"""


def test_an_artifact_is_made_once_by_several_processes(tmp_path: Path, cell: Cell) -> None:
    processes = [start(MAKING, tmp_path, result(cell)) for _ in range(4)]
    assert [process.communicate()[0] for process in processes] == ["whole\n"] * 4
    assert (tmp_path / "made.log").read_text() == "x"


def test_a_crash_while_making_leaves_nothing_and_the_next_process_makes_it(tmp_path: Path, cell: Cell) -> None:
    process = start(MAKING.replace("time.sleep(0.3)", "print('half'); time.sleep(60)"), tmp_path, result(cell))
    assert process.stdout and process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    store = Store(tmp_path)
    assert not store.artifact_path("abc").exists()
    assert store.artifact("abc", text("whole")).read_text() == "whole"


def test_a_forgotten_artifact_is_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.forget_artifact("abc")
    store.artifact("abc", text("first"))
    assert store.artifact("abc", text("second")).read_text() == "first"
    store.forget_artifact("abc")
    assert store.artifact("abc", text("second")).read_text() == "second"


@pytest.mark.parametrize("where", ["body", "status", "key"])
def test_a_flipped_bit_of_a_stored_result_is_told(tmp_path: Path, cell: Cell, where: str) -> None:
    """Bits are flipped below the database: what it returns is sound SQL, and sound JSON where a digit turns."""
    store = Store(tmp_path)
    store.add(result(cell))
    [row] = read_rows(store, "SELECT key, status, body FROM results")
    changed = dict(zip(("key", "status", "body"), row, strict=True))
    flips = {"key": (row[0][-1], chr(ord(row[0][-1]) ^ 1)), "status": ("ok", "oj"), "body": ("0.5", "0.4")}
    changed[where] = changed[where].replace(*flips[where], 1)
    with sqlite3.connect(store.database) as connection:
        connection.execute("UPDATE results SET key = ?, status = ?, body = ?", tuple(changed.values()))
        connection.execute("UPDATE sums SET key = ?", (changed["key"],))
    connection.close()
    with pytest.raises(UserError, match=r"results.sqlite': the result \w+ was damaged; restore"):
        store.results()


def test_flipping_any_bit_of_the_file_is_told_or_changes_nothing(tmp_path: Path, cell: Cell) -> None:
    store = Store(tmp_path)
    for seed in range(3):
        store.add(small(cell, seed))
    whole, sound = store.results(), store.database.read_bytes()
    random = np.random.default_rng(0)
    told = 0
    for place in random.integers(0, len(sound), 60):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << int(random.integers(8))
        store.database.write_bytes(bytes(damaged))
        try:
            # What is gone is computed again; what is there is as it was.
            assert all(item in whole for item in store.results())
        except UserError:
            told += 1
        for left in tmp_path.glob("results.sqlite-*"):
            left.unlink()
    assert told > 5


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_truncated_database_is_told(tmp_path: Path, cell: Cell, share: float) -> None:
    store = Store(tmp_path)
    for seed in range(3):
        store.add(result(cell, seed))
    content = store.database.read_bytes()
    store.database.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"results.sqlite' cannot be used: .*restore it from a copy"):
        store.results()


def test_a_folder_from_before_there_were_checksums_is_read_and_continued(tmp_path: Path, cell: Cell) -> None:
    store = Store(tmp_path)
    first, second = result(cell, 0), result(cell, 1)
    with sqlite3.connect(store.database) as connection:
        connection.execute("CREATE TABLE results (key TEXT PRIMARY KEY, status TEXT NOT NULL, body TEXT NOT NULL)")
        row = (first.cell.key, first.status, first.model_dump_json())
        connection.execute("INSERT INTO results VALUES (?, ?, ?)", row)
    connection.close()
    store.add(second)
    assert store.results() == sorted([first, second], key=lambda item: item.cell.key)


def test_equal_parts_of_results_are_held_once(tmp_path: Path, cell: Cell) -> None:
    store = Store(tmp_path)
    for seed in range(2):
        store.add(small(cell, seed))
    one, other = store.results()
    assert one.cell.task is other.cell.task and one.cell.attack is other.cell.attack and one != other
    assert one.cell.key == Result.model_validate_json(one.model_dump_json()).cell.key


def small(cell: Cell, seed: int) -> Result:
    columns = {name: (1,) for name in ("step", "samples", "flops", "seconds")}
    run = Trajectory(**columns, val=(0.5,), test=(0.25,), correct=("gMA=",), own=(None,))
    return Result(cell=cell.model_copy(update={"seed": seed}), status="ok", trajectory=run)


def read_rows(store: Store, query: str) -> list[tuple[str, ...]]:
    connection = sqlite3.connect(store.database)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()
