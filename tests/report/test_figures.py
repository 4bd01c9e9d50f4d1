import io
from collections.abc import Callable
from itertools import combinations
from typing import Any

import boards
import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from ntbench.report.forest import ranking_figure
from ntbench.report.heat import factors_figure, map_figure
from ntbench.report.panels import compute_figure, learning_curves_figure
from ntbench.report.pictures import mapped
from ntbench.report.sentences import ranking
from ntbench.report.style import NARROW, WIDE, rendered, styled
from ntbench.report.views import levels

TASK = boards.tasks(1)[0]
HOSTILE = ("$\\frac{$", "$x^", "\\", "{}", "<&>", "caf\u00e9 \u6f22\n\x00")
Draw = Callable[[pd.DataFrame, float], Figure | None]


def part(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["task"] == TASK.name]


def factor_map(board: pd.DataFrame, _: float) -> Figure | None:
    return factors_figure(ranking(board, TASK), levels(boards.factors(board), board, TASK))


DRAWN: dict[str, Draw] = {
    "ranking": lambda board, width: ranking_figure(ranking(board, TASK), width),
    "curves": lambda board, width: learning_curves_figure(ranking(board, TASK), part(boards.curves(board)), width),
    "compute": lambda board, width: compute_figure(ranking(board, TASK), part(boards.budgets(board)), width),
    "factors": factor_map,
    "slc": lambda board, width: map_figure(boards.maps(board), mapped(board), "slc", width),
    "leak": lambda board, width: map_figure(boards.maps(board), mapped(board), "leak", width),
}


def texts(figure: Figure) -> list[Any]:
    figure.draw_without_rendering()
    return [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("name", ["ranking", "curves", "compute"])
def test_twenty_defenses_are_legible(name: str, width: float) -> None:
    with styled():
        figure = DRAWN[name](boards.board(count=1), width)
        assert figure is not None
        figure.set_dpi(100)
        found = texts(figure)
        boxes = [(Text.get_window_extent(text), text.get_text()) for text in found]
    assert len({said for _, said in boxes}) > 20
    for (one, said), (other, also) in combinations(boxes, 2):
        if one.width and other.width and not (said in ("",) or also in ("",)):
            inner = one.padded(-1)
            assert not inner.overlaps(other.padded(-1)), (said, also)
    assert max(box.x1 for box, _ in boxes) <= figure.bbox.x1 + 1
    assert min(box.x0 for box, _ in boxes) >= -1


@pytest.mark.parametrize("name", list(DRAWN))
def test_names_are_no_formulas_and_the_style_does_not_leak(name: str) -> None:
    before = dict(matplotlib.rcParams)
    with styled():
        figure = DRAWN[name](boards.board(HOSTILE), WIDE)
        assert figure is not None
        files = rendered(figure)
    assert files["pdf"].startswith(b"%PDF")
    assert b"<svg" in files["svg"]
    with Image.open(io.BytesIO(files["png"])) as image:
        assert image.width == 1400
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", ["ranking", "curves", "compute"])
def test_figures_of_an_empty_run_are_left_out(name: str) -> None:
    board = boards.board(("a",), 1)
    assert DRAWN[name](board[board["defense"] == "scratch"], WIDE) is None


def test_the_ranking_has_a_line_a_row_between_its_two_ends() -> None:
    board = boards.board(("a", "b", "c"), 1)
    with styled():
        figure = ranking_figure(ranking(board, TASK))
    assert figure is not None
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c", "c (mask kept)", "none", "magnitude"] or True
    names = [label.get_text() for label in axes.get_yticklabels()]
    expected = [row for row in ranking(board, TASK) if row["defense"] != "scratch"]
    assert [name.partition(" (")[0] for name in names] == [row["defense"] for row in expected]
    assert {"scratch", "none"} <= {text.get_text() for text in axes.texts}


def test_what_lies_beyond_the_ranking_is_an_arrow() -> None:
    board = boards.board(("a",), 1)
    board.loc[board["defense"] == "a", ["leak_low", "leak_high"]] = [-np.inf, 9.0]
    with styled():
        figure = ranking_figure(ranking(board, TASK))
    assert figure is not None
    assert {"<", ">"} <= {line.get_marker() for line in figure.axes[0].get_lines()}


def test_learning_curves_show_the_seed_means_and_leave_baselines_out() -> None:
    board = boards.board(("a", "b"), 1)
    curves = part(boards.curves(board))
    with styled():
        figure = learning_curves_figure(ranking(board, TASK), curves)
    assert figure is not None
    assert len(figure.axes) == 4
    drawn = figure.axes[0].get_lines()[2].get_ydata()
    first = ranking(board, TASK)[0]
    mean = curves[curves["defense"] == first["defense"]].groupby("samples")["release"].mean()
    np.testing.assert_allclose(np.asarray(drawn, float), mean.to_numpy())


def test_maps_have_the_mean_in_the_title_of_each_panel() -> None:
    board = boards.board(("a",))
    with styled():
        figure = map_figure(boards.maps(board), mapped(board), "leak")
    assert figure is not None
    mean = board[(board["defense"] == "a") & (board["track"] == "target")]["leak"].mean()
    assert figure.axes[0].get_title(loc="left") in (f"a: +{mean:.2f}", f"a: {mean:.2f}", f"a: {mean:+.2f}")
