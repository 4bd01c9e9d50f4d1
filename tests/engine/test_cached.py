from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fabricated import additive, grid, outcome, recipe, suite, trajectory, with_bits

from ntbench.engine import cached
from ntbench.engine.store import Store
from ntbench.errors import UserError
from ntbench.measure.board import gates_table, leaderboard_table
from ntbench.measure.standing import Study
from ntbench.measure.tables import results_table, trajectories_table
from ntbench.types import Columns, Epochs, Result


@pytest.fixture(autouse=True)
def of_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "FEWEST", 1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    fill(store, RESULTS)
    return store


def fill(store: Store, results: list[Result]) -> None:
    for result in results:
        store.add(result)


OWN = outcome(recipe("none", "weak", 10, 0, knowledge="own"), trajectory([0.3, 0.4], own=[None, 0.25]), error="é\n2")
PAPERS = outcome(recipe("none", "weak", 10, 1, budget=Epochs(epochs=2, each=5)), trajectory([0.4], ends=(10,)))
RESULTS = [*list(with_bits(additive))[:12], *list(grid(additive, rows=[("ntp", "dense")]))[-4:], OWN, PAPERS]


def cache(store: Store) -> Path:
    return store.folder / "results.arrow"


def refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Return whether the rows are read again, as they are wherever the cache is not believed."""
    read: list[Columns] = []
    gathered = Store._gathered

    def watched(self: Store) -> Columns:
        read.append(gathered(self))
        return read[-1]

    monkeypatch.setattr(Store, "_gathered", watched)
    assert store.results() == sorted(RESULTS, key=lambda r: r.cell.key)
    return bool(read)


def test_what_is_read_from_a_cache_is_what_the_store_holds(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = store.results()
    assert rows == sorted(RESULTS, key=lambda r: r.cell.key) and cache(store).exists()
    assert not refused(store, monkeypatch)
    again = store.results()
    assert [r.model_dump_json() for r in again] == [r.model_dump_json() for r in rows]
    assert rows[0].model_dump_json() == next(r.model_dump_json() for r in RESULTS if r.cell.key == rows[0].cell.key)


def test_tables_and_verdicts_are_the_same_from_results_from_rows_and_from_a_cache(tmp_path: Path) -> None:
    given = list(with_bits(additive))
    store = Store(tmp_path)
    with sqlite3.connect(_tables(store)) as connection:
        rows = [(r.cell.key, r.status, r.model_dump_json()) for r in given]
        connection.executemany("INSERT INTO results VALUES (?, ?, ?)", rows)
    connection.close()
    cold, warm = store.results(), store.results()
    assert cold is not warm and cache(store).exists()
    for made in (
        results_table,
        trajectories_table,
        lambda results: leaderboard_table(Study(results, suite()), suite()),
        lambda results: gates_table(Study(results, suite()), suite()),
    ):
        want = made(given)
        for results in (cold, warm):
            pd.testing.assert_frame_equal(made(results), want, check_exact=True)


def _tables(store: Store) -> Path:
    store.forget([])
    return store.database


def test_few_rows_leave_no_file_behind(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "FEWEST", len(RESULTS) + 1)
    assert len(store.results()) == len(RESULTS) and not cache(store).exists()


def test_a_result_that_is_added_or_forgotten_is_seen(store: Store) -> None:
    assert len(store.results()) == len(RESULTS)
    more = outcome(recipe("none", "weak", 10, 9), trajectory([0.5]))
    store.add(more)
    assert more in store.results()
    store.forget([more.cell.key])
    assert more not in store.results() and len(store.results()) == len(RESULTS)


def flipped(share: float, content: bytes) -> bytes:
    at = int(share * (len(content) - 1))
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "without its end": lambda content: content[:-1],
    "something else": lambda content: b"no cache" * 100,
    "longer": lambda content: content + b"\0",
    **{f"a flipped bit at {share:.0%}": partial(flipped, share) for share in np.linspace(0, 1, 9)},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_made_again(store: Store, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store.results()
    sound = cache(store).read_bytes()
    cache(store).write_bytes(DAMAGE[damage](sound))
    assert refused(store, monkeypatch)
    assert cache(store).read_bytes() == sound


def test_a_cache_of_another_store_is_made_again(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    other = Store(tmp_path / "other")
    fill(other, RESULTS[:3])
    other.results()
    cache(store).write_bytes(cache(other).read_bytes())
    assert refused(store, monkeypatch)


def test_a_cache_that_other_code_made_is_made_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as before:
        before.setattr(cached, "CODE", "older")
        store.results()
    assert refused(store, monkeypatch)


def test_damage_of_the_store_is_told_though_there_is_a_cache(store: Store) -> None:
    store.results()
    content = store.database.read_bytes()
    at = content.index(b'"paid":80') + len(b'"paid":')
    store.database.write_bytes(content[:at] + b"9" + content[at + 1 :])
    for _ in range(2):
        with pytest.raises(UserError, match=r"the result \w+ was damaged; restore"):
            store.results()


def test_what_a_writer_left_in_the_log_is_seen(store: Store) -> None:
    store.results()
    writer = sqlite3.connect(store.database)
    try:
        with writer:
            writer.execute("DELETE FROM results WHERE key = ?", (RESULTS[0].cell.key,))
        assert RESULTS[0] not in store.results() and len(store.results()) == len(RESULTS) - 1
    finally:
        writer.close()


def test_a_cache_that_cannot_be_written_is_done_without(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    assert len(store.results()) == len(RESULTS)
    assert not [file for file in store.folder.iterdir() if "arrow" in file.name]


READS = """
import sys
from pathlib import Path
from ntbench.engine import cached
from ntbench.engine.store import Store
cached.FEWEST = 1
for _ in range(5):
    (Path(sys.argv[1]) / "results.arrow").unlink(missing_ok=True)
    print(len(Store(Path(sys.argv[1])).results()), len(Store(Path(sys.argv[1])).results()))
"""


def test_two_processes_that_read_and_write_the_cache_at_once_do_not_disturb_each_other(store: Store) -> None:
    command = [sys.executable, "-c", READS, str(store.folder)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for reader in readers:
        assert reader.communicate(timeout=120)[0].split() == [str(len(RESULTS))] * 10
        assert reader.returncode == 0
    assert not [file for file in store.folder.iterdir() if file.name.startswith(".")]
