import io
from collections.abc import Callable
from itertools import combinations, pairwise
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
from ntbench.report.heat import attacks_figure, factors_figure, map_figure
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
    """Return the texts that are drawn; ticks beyond the limits of their axes are not."""
    figure.draw_without_rendering()
    ticks = [
        (axis, tick) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for tick in axis.get_major_ticks()
    ]
    hidden = {tick.label2 for _, tick in ticks}
    hidden |= {tick.label1 for axis, tick in ticks if not within(tick.get_loc(), axis.get_view_interval())}
    found = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    return [text for text in found if text not in hidden]


def within(place: float, ends: Any) -> bool:
    return bool(min(ends) <= place <= max(ends))


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("name", ["ranking", "curves", "compute", "factors", "leak"])
def test_twenty_defenses_are_legible(name: str, width: float) -> None:
    with styled():
        figure = DRAWN[name](boards.board(), width)
        assert figure is not None
        figure.set_dpi(100)
        boxes = [(text.get_window_extent(), text.get_text()) for text in texts(figure) if not text.get_rotation()]
    assert len({said for _, said in boxes}) > 20
    for (one, said), (other, also) in combinations(boxes, 2):
        assert not one.padded(-1).overlaps(other.padded(-1)), (said, also)
    assert max(box.x1 for box, _ in boxes) <= figure.bbox.x1 + 1
    assert min(box.x0 for box, _ in boxes) >= -1


def test_sixty_attacks_are_legible() -> None:
    board = boards.board(count=1)
    with styled():
        table = part(boards.attacks(board))
        figure = attacks_figure(ranking(board, TASK), table[table["mask"] == "dense"])
        assert figure is not None
        labels = figure.axes[0].get_yticklabels()
        figure.draw_without_rendering()
        boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: float(box.y0))
    assert len(boxes) == len(boards.ATTACKS)
    assert all(low.y1 <= high.y0 + 2 for low, high in pairwise(boxes))


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
    mean = curves[curves["defense"] == first["defense"]].groupby("samples")["worst"].mean()
    np.testing.assert_allclose(np.asarray(drawn, float), mean.to_numpy())


def test_maps_have_the_mean_in_the_title_of_each_panel() -> None:
    board = boards.board(("a",))
    with styled():
        figure = map_figure(boards.maps(board), mapped(board), "leak")
    assert figure is not None
    mean = board[(board["defense"] == "a") & (board["track"] == "target")]["leak"].mean()
    assert figure.axes[0].get_title(loc="left") in (f"a: +{mean:.2f}", f"a: {mean:.2f}", f"a: {mean:+.2f}")
