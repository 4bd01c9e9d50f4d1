"""A run as frames, verdicts and figures: those of the report, of a board that nobody measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from small_board import GAIN, PAIR, small_results, small_suite

import ntbench
from ntbench.errors import UserError
from ntbench.notebook.run import Run
from ntbench.report.tables import Tables

TABLES = ["leaderboard", "results", "trajectories", "curves", "budgets", "attacks", "factors", "tasks", "coverage"]


@pytest.fixture(scope="module")
def run(small_run: Path) -> Run:
    return ntbench.load(small_run)


def test_a_loaded_run_has_the_tables_of_its_report(run: Run) -> None:
    tables = Tables.of(small_results(), small_suite())
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(run, name)(), getattr(tables, name))
    assert len(run.results()) == len(small_results()) and run.failures().empty


def test_writing_into_a_frame_changes_nobody_elses(run: Run) -> None:
    own = run.leaderboard()
    own["leak"] = 7.0
    assert (run.leaderboard()["leak"] != 7.0).any()


def test_a_verdict_is_that_of_the_leaderboard(run: Run) -> None:
    board = run.leaderboard()
    row = board[(board["defense"] == "ntp") & (board["mask"] == "dense")].iloc[0]
    found = run.verdict("ntp")
    assert (found.verdict, found.reason, found.seeds) == (row["verdict"], row["reason"], row["seeds"])
    assert found.leak == tuple(row[["leak", "leak_low", "leak_high"]])
    assert "ntp" in str(found) and f"{row['leak']:.2f}" in str(found)
    assert run.verdict("scratch").verdict == ""


def test_gates_have_the_words_of_the_leaderboard(run: Run) -> None:
    gates, board = run.gates(), run.leaderboard()
    assert len(gates) == 5 * len(board)
    for row in board.to_dict("records"):
        own = gates[(gates["defense"] == row["defense"]) & (gates["mask"] == row["mask"])]
        assert dict(zip(own["gate"], own["passed"], strict=True)) == {g: row[f"gate_{g}"] for g in own["gate"]}
        assert all(f"{gate}: {reason.split('; ')[0]}" in row["gates"] for gate, reason in _failed(own))


def _failed(gates: pd.DataFrame) -> list[tuple[str, str]]:
    failed = gates[~gates["passed"]]
    return list(zip(failed["gate"], failed["reason"], strict=True))


def test_figures_are_drawn_alone_or_on_given_axes(run: Run, tmp_path: Path) -> None:
    alone = run.plot.leak()
    assert len(alone.axes) == 1
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert run.plot.leak(axes=left) is figure and run.plot.learning_curves("ntp", axes=right) is figure
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names == [label.get_text() for label in alone.axes[0].get_yticklabels()] and len(names) > 2
    curves = run.curves()
    mean = curves[(curves["defense"] == "ntp") & (curves["mask"] == "dense")].groupby("samples")["worst"].mean()
    assert [tuple(line.get_ydata()) for line in right.get_lines()][-1] == pytest.approx(tuple(mean))
    figure.savefig(tmp_path / "both.png")


@pytest.mark.parametrize("kind", ["learning_curves", "compute", "attacks"])
def test_a_notebook_shows_a_figure_by_itself(run: Run, kind: str, tmp_path: Path) -> None:
    data, size = getattr(run.plot, kind)()._repr_png_()
    (tmp_path / "shown.png").write_bytes(data)
    with Image.open(tmp_path / "shown.png") as image:
        assert image.width > size["width"] > 300


def test_a_subfigure_is_drawn_on_too(run: Run) -> None:
    figure = Figure()
    parts: Any = figure.subfigures(1, 2)
    assert run.plot.compute("ntp", axes=parts[0].subplots()) is figure


def test_a_notebook_shows_the_leaderboard(run: Run) -> None:
    shown = run._repr_html_()
    assert shown.count("<tr") == 1 + len(run.leaderboard()) and PAIR.title in shown
    assert all(name in repr(run) for name in GAIN)


MISTAKES: dict[str, tuple[Any, str]] = {
    "row": (lambda run: run.verdict("ntq"), "unknown row 'ntq'; did you mean 'ntp'"),
    "task": (lambda run: run.verdict("ntp", task="a-c"), "unknown task 'a-c'; did you mean 'a-b'"),
    "axes without a defense": (lambda run: run.plot.compute(axes=Figure().subplots()), "name it with defense=: "),
    "baseline": (lambda run: run.plot.learning_curves("scratch"), "unknown row 'scratch'"),
    "map": (lambda run: run.plot.map("leek"), "unknown number 'leek'; did you mean 'leak'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_names_the_value_and_the_remedy(run: Run, name: str) -> None:
    call, message = MISTAKES[name]
    with pytest.raises(UserError, match=message):
        call(run)


def test_several_tasks_must_be_named() -> None:
    other = PAIR.model_copy(update={"target": "c"})
    run = Run(small_results(), small_suite(tasks=[PAIR, other]))
    with pytest.raises(UserError, match="several tasks; name one with task=: a-b, a-c"):
        run.plot.leak()
    assert run.plot.leak(task="a-b").axes


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run; start one with"):
        ntbench.load(tmp_path / "nothing")


def test_a_run_without_results_says_so() -> None:
    empty = Run([], small_suite())
    assert "No row has a number yet" in empty._repr_html_() and "no row yet" in repr(empty)
    assert empty.leaderboard().empty and empty.gates().empty
    with pytest.raises(UserError, match="there is no leak to draw yet"):
        empty.plot.leak()
    assert not math.isnan(len(empty.cells))


def test_what_nobody_offers_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'ntbench' has no attribute 'lode'"):
        ntbench.lode  # noqa: B018
