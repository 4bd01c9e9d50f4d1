import io
from collections.abc import Callable
from itertools import combinations, pairwise
from typing import Any

import boards
import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from ntbench.measure.ablations import COLUMNS as ABLATED
from ntbench.measure.agreement import agreement_table
from ntbench.measure.permitted import COLUMNS
from ntbench.measure.tables import drawn_table
from ntbench.report.forest import ranking_figure
from ntbench.report.heat import MOST, attacks_figure, factors_figure, map_figure
from ntbench.report.panels import compute_figure, learning_curves_figure
from ntbench.report.pictures import Picture, map_pictures, mapped, task_pictures
from ntbench.report.sentences import ranking
from ntbench.report.style import NARROW, WIDE, rendered, styled
from ntbench.report.views import levels

TASK = boards.tasks(1)[0]
HOSTILE = ("$\\frac{$", "$x^", "\\", "{}", "<&>", "caf\u00e9 \u6f22\n\x00")
Draw = Callable[[pd.DataFrame, float], Figure | None]


def part(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["task"] == TASK.name]


def factor_map(board: pd.DataFrame, width: float) -> Figure | None:
    return factors_figure(ranking(board, TASK), levels(boards.factors(board), board, TASK), width=width)


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


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_sixty_attacks_are_legible(width: float) -> None:
    board = boards.board(count=1)
    with styled():
        table = part(boards.attacks(board))
        figure = attacks_figure(ranking(board, TASK), table[table["mask"] == "dense"], width=width)
        assert figure is not None
        labels = figure.axes[0].get_yticklabels()
        figure.draw_without_rendering()
        boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: float(box.y0))
    assert len(boxes) == len(boards.ATTACKS)
    assert all(low.y1 <= high.y0 + 2 for low, high in pairwise(boxes))


def test_of_many_attacks_those_that_are_strongest_against_some_row_are_shown() -> None:
    board = boards.board(count=1)
    table = part(boards.attacks(board))
    table = table[table["mask"] == "dense"]
    more = table.assign(attack=table["attack"] + " again", slc=table["slc"] - 5)
    alone = more["attack"].iloc[3]
    more.loc[(more["attack"] == alone) & (more["defense"] == more["defense"].iloc[-1]), "slc"] = 9.0
    with styled():
        figure = attacks_figure(ranking(board, TASK), pd.concat([table, more]))
    assert figure is not None
    axes = figure.axes[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert len(shown) == MOST and alone in shown and not any(name.endswith("again") for name in {*shown} - {alone})
    assert axes.get_title(loc="left") == f"{MOST} of {2 * len(boards.ATTACKS)}, the highest against any row"


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


def read(picture: Picture) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(picture.files[".csv"]), keep_default_na=False, na_values=[""])


def grids(figure: Figure | None) -> list[Any]:
    assert figure is not None
    return [np.ma.filled(np.ma.asarray(axes.images[0].get_array()), np.nan) for axes in figure.axes]


@pytest.fixture(scope="module")
def drawn() -> tuple[pd.DataFrame, dict[str, Picture]]:
    """A small board and its pictures."""
    board = boards.board(("a", "b", "c"))
    lines = {"curves": boards.curves(board), "budgets": boards.budgets(board), "attacks": boards.attacks(board, 4)}
    held = {name: part(table) for name, table in lines.items()}
    held |= {"permitted": pd.DataFrame(columns=COLUMNS), "ablations": pd.DataFrame(columns=ABLATED)}
    held |= {"drawn": drawn_table([]), "agreement": agreement_table([])}
    rows, found = ranking(board, TASK), levels(boards.factors(board), board, TASK)
    pictures = task_pictures(rows, held, found, ("t", "T"), "classification")
    return board, pictures | map_pictures(boards.maps(board), mapped(board), "P")


def test_every_figure_has_both_widths_in_every_format_and_its_data(drawn: tuple[Any, dict[str, Picture]]) -> None:
    assert set(drawn[1]) == {"ranking", "learning_curves", "compute", "factors", "attacks", "slc", "leak"}
    for picture in drawn[1].values():
        forms = {f"{end}.{kind}" for end in ("", "-column") for kind in ("pdf", "png", "svg")}
        assert set(picture.files) == forms | {".csv"}
        for end, inches in (("", WIDE), ("-column", NARROW)):
            with Image.open(io.BytesIO(picture.files[f"{end}.png"])) as image:
                assert image.width == round(200 * inches)
        assert len(read(picture)) > 1


def test_the_data_of_the_ranking_are_where_its_marks_are(drawn: tuple[pd.DataFrame, dict[str, Picture]]) -> None:
    board, pictures = drawn
    data = read(pictures["ranking"])
    with styled():
        figure = ranking_figure(ranking(board, TASK))
    assert figure is not None
    low, high = figure.axes[0].get_xlim()
    lines = [line for line in figure.axes[0].get_lines() if line.get_marker() not in ("None", "<", ">")]
    inside = data[data["leak"].between(low, high)]
    np.testing.assert_allclose([float(np.ravel(line.get_xdata())[0]) for line in lines], inside["leak"], atol=1e-6)
    spans = [
        np.asarray(line.get_xdata(), float)
        for line in figure.axes[0].get_lines()
        if len(np.ravel(line.get_ydata())) == 2
    ][2:]
    np.testing.assert_allclose(np.array(spans), data[["leak_low", "leak_high"]].clip(low, high), atol=1e-6)


def test_the_data_of_the_curves_are_their_points(drawn: tuple[pd.DataFrame, dict[str, Picture]]) -> None:
    board, pictures = drawn
    data, rows = read(pictures["learning_curves"]), ranking(board, TASK)
    with styled():
        figure = learning_curves_figure(rows, part(boards.curves(board)))
    assert figure is not None
    panels = data.groupby(["defense", "mask"], sort=False)
    assert len(panels) == len(figure.axes)
    for axes, (_, told) in zip(figure.axes, panels, strict=True):
        for line, name in zip(axes.get_lines(), ("paper", "baseline", "release"), strict=True):
            np.testing.assert_allclose(np.asarray(line.get_xydata()), told[["samples", name]], atol=1e-6)
        bars = [bar.get_segments() for bar in axes.collections if isinstance(bar, LineCollection)]
        for segments, name in zip(bars, ("baseline", "release"), strict=True):
            ends = [[low[1], high[1]] for low, high in segments]
            np.testing.assert_allclose(ends, told[[f"{name}_min", f"{name}_max"]], atol=1e-6)


def test_the_data_of_the_budgets_are_their_points(drawn: tuple[pd.DataFrame, dict[str, Picture]]) -> None:
    board, pictures = drawn
    with styled():
        figure = compute_figure(ranking(board, TASK), part(boards.budgets(board)))
    assert figure is not None
    panels = read(pictures["compute"]).groupby(["defense", "mask"], sort=False)
    assert len(panels) == len(figure.axes)
    for axes, (_, told) in zip(figure.axes, panels, strict=True):
        np.testing.assert_allclose(np.asarray(axes.get_lines()[-1].get_xydata()), told[["budget", "uplift"]], atol=1e-6)
        (band,) = [path.vertices for path in axes.collections[0].get_paths()]
        assert {*np.round(np.asarray(band)[:, 1], 6)} == {
            *np.round(told[["uplift_low", "uplift_high"]].to_numpy().ravel(), 6)
        }


def test_the_data_of_the_maps_are_their_cells(drawn: tuple[pd.DataFrame, dict[str, Picture]]) -> None:
    board, pictures = drawn
    rows, found = ranking(board, TASK), levels(boards.factors(board), board, TASK)
    for name, number, figure in (
        ("factors", "leak", factors_figure(rows, found)),
        ("attacks", "slc", attacks_figure(rows, part(boards.attacks(board, 4)))),
        ("slc", "slc", map_figure(boards.maps(board), mapped(board), "slc")),
        ("leak", "leak", map_figure(boards.maps(board), mapped(board), "leak")),
    ):
        cells = np.concatenate([grid.ravel() for grid in grids(figure)])
        cells = np.sort(cells[np.isfinite(cells)])
        data = np.sort(read(pictures[name])[number].dropna().to_numpy(float))
        np.testing.assert_allclose(cells, data, atol=1e-6, err_msg=name)


def test_maps_have_the_mean_in_the_title_of_each_panel() -> None:
    board = boards.board(("a",))
    with styled():
        figure = map_figure(boards.maps(board), mapped(board), "leak")
    assert figure is not None
    mean = board[(board["defense"] == "a") & (board["track"] == "target")]["leak"].mean()
    assert figure.axes[0].get_title(loc="left") in (f"a: +{mean:.2f}", f"a: {mean:.2f}", f"a: {mean:+.2f}")
