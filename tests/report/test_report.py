"""The report of fabricated results, from the first number to the last file."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fabricated import COUNTS, additive, grid, suite, with_bits
from rich.console import Console

from ntbench.errors import UserError
from ntbench.measure.board import leaderboard_table
from ntbench.report.glossary import GLOSSARIES
from ntbench.report.page import write_report
from ntbench.report.sentences import sentence
from ntbench.report.tables import Tables
from ntbench.report.terminal import details, headlines
from ntbench.suite import Suite
from ntbench.types import Level, Result, Task, Trajectory

FOLDER = "/home/somebody/private"
LEVELS = tuple(Level(samples=n, t90=10, plateau=0.6) for n in COUNTS)
PAIRS = [("photo", "sketch"), ("cartoon", "sketch"), ("photo", "art")]
FOLDERS = [Task(source=f"folder:{FOLDER}/{s}", target=f"folder:{FOLDER}/{t}", levels=LEVELS) for s, t in PAIRS]


def several() -> tuple[list[Result], Suite]:
    found = [result for task in FOLDERS for result in grid(additive, task=task)]
    return found, suite(tasks=FOLDERS)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("run"), *several()).parent


def text(report: Path, name: str = "index.html") -> str:
    return re.sub(r"base64,[^\"]*", "", (report / name).read_text(encoding="utf-8"))


def test_no_folder_of_a_machine_reaches_a_report(report: Path) -> None:
    for path in report.rglob("*"):
        assert "private" not in path.name
        if path.suffix in (".html", ".md", ".tex", ".csv"):
            assert FOLDER not in path.read_text(encoding="utf-8"), path.name
    assert "photo to sketch" in text(report)
    assert (report / "figures/ranking-photo-sketch.png").exists()
    assert (report / "figures/leak-map.svg").exists()


def test_the_numbers_can_be_recomputed_from_the_tables(report: Path) -> None:
    curves, board = pd.read_csv(report / "curves.csv"), pd.read_csv(report / "leaderboard.csv")
    wide = curves.groupby(["task", "track", "defense", "mask", "samples"])[["worst", "rational", "baseline"]].mean()
    for row in board[board["track"] == "target"].itertuples():
        means = wide.xs((row.task, row.track, row.defense, row.mask))
        x = np.log(means.index.to_numpy(float))
        assert row.slc == pytest.approx(np.trapezoid(means["worst"] - means["baseline"], x), abs=1e-5)
        gain = np.trapezoid(means["rational"] - means["baseline"], x) / np.log(100)
        assert row.uplift == pytest.approx(gain, abs=1e-5)


def test_every_column_of_every_file_is_explained_and_nothing_else(report: Path) -> None:
    files = {path.name for path in report.iterdir() if path.suffix in (".csv", ".parquet")}
    assert files == set(GLOSSARIES) - {"permitted.csv", "ablations.csv"}, "no rows of it differ in one thing alone"
    for name in files:
        table = pd.read_parquet(report / name) if name.endswith("parquet") else pd.read_csv(report / name)
        assert set(table.columns) == set(GLOSSARIES[name]), name


def test_a_run_leaves_nothing_of_a_larger_one(tmp_path: Path) -> None:
    old = [tmp_path / "report" / name for name in ("map.csv", "figures/ranking-photo-sketch.png")]
    (tmp_path / "report/figures").mkdir(parents=True)
    for path in old:
        path.touch()
    write_report(tmp_path, with_bits(additive), suite())
    assert not any(path.exists() for path in old)
    assert (tmp_path / "report/figures/ranking-a-b.png").exists()


def partial_runs() -> Iterator[Any]:
    whole = list(grid(additive))
    yield pytest.param([r for r in whole if r.cell.defense.name != "scratch"], id="no scratch")
    yield pytest.param([r for r in whole if r.cell.samples == 10], id="one count")
    yield pytest.param([r for r in whole if r.cell.seed == 0], id="one seed")
    yield pytest.param([r for r in whole if r.status == "inapplicable"], id="nothing applies")
    bare = {"status": "error", "error": "boom", "trajectory": Trajectory(), "protection": None, "provenance": None}
    yield pytest.param([r.model_copy(update=bare) for r in whole[:4]], id="all failed")


@pytest.mark.parametrize("found", [*partial_runs()])
def test_a_partial_run_has_dashes(found: list[Result], tmp_path: Path) -> None:
    report = write_report(tmp_path, found, suite()).parent
    board = leaderboard_table(found, suite())
    terminal = io.StringIO()
    Console(file=terminal, width=80).print(*headlines(board, suite()), *details(board, suite()))
    shown = [text(report, path.name) for path in report.iterdir() if path.suffix in (".html", ".md", ".tex")]
    shown.append(terminal.getvalue())
    shown += [sentence(board, task) for task in suite().tasks]
    for said in shown:
        assert not re.search(r"\b(nan|<na>|inf)\b", said, re.IGNORECASE)


def test_no_results_is_a_mistake_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no results yet; run `ntbench run tiny`"):
        write_report(tmp_path, [], suite())
    assert not list(tmp_path.iterdir())


def test_a_report_is_a_function_of_results_and_suite() -> None:
    found = list(grid(additive, seeds=(0, 1)))
    one, other = Tables.of(found, suite()), Tables.of(found[::-1], suite())
    pd.testing.assert_frame_equal(one.leaderboard, other.leaderboard)
    assert one.files == other.files
