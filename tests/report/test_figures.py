from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fabricated import CURVE_COLUMNS, PATH_COLUMNS
from matplotlib.text import Text
from PIL import Image

from ntbench.report.figures import heatmap_figure, intactness_figure, save, task_figures


def board(count: int, slc: float | None = None) -> pd.DataFrame:
    rows = [
        {
            "defense": f"defense_{i}",
            "mask": "keep" if i % 3 == 2 else "dense",
            "control": False,
            "slc": i / 10 - 0.5 if slc is None else slc,
            "drop": 0.004 * i,
            "paper_attack": "weak",
            "paper_mask": "dense",
            "overhead_steps_90": 2.0,
            "overhead_steps_90_censored": 0.0,
        }
        for i in range(count)
    ]
    frame = pd.DataFrame(rows)
    for name in ("slc", "drop"):
        frame[f"{name}_low"], frame[f"{name}_high"] = frame[name] - 0.01, frame[name] + 0.01
    return frame


def heat(names: pd.DataFrame) -> pd.DataFrame:
    rows = [(r.defense, r.mask, a, x) for r in names.itertuples() for a, x in (("weak", -1.5), ("strong", -0.001))]
    return pd.DataFrame(rows, columns=["defense", "mask", "attack", "slc"])


@pytest.mark.parametrize("count", [14, 40])
def test_names_do_not_overlap_even_where_all_rows_have_the_same_number(count: int) -> None:
    figure = intactness_figure(board(count, -0.4))
    assert figure is not None
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]
    assert len(boxes) == count
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)
    assert max(box.x1 for box in boxes) <= figure.bbox.x1
    assert max(box.y1 for box in boxes) <= figure.bbox.y1


def test_intactness_leaves_out_scratch_and_rows_without_numbers() -> None:
    frame = board(3)
    frame.loc[0, "defense"] = "scratch"
    frame.loc[1, "slc"] = np.nan
    figure = intactness_figure(frame)
    assert figure is not None
    assert [text.get_text() for text in figure.axes[0].texts] == ["defense_2 (mask kept)"]
    assert intactness_figure(frame.iloc[:2]) is None


def test_a_kept_mask_is_hollow() -> None:
    figure = intactness_figure(board(3))
    assert figure is not None
    dots = [line for line in figure.axes[0].get_lines() if line.get_marker() == "o"]
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [False, False, True]


def test_the_heat_map_is_centred_at_zero_and_frames_the_papers_attack() -> None:
    names = board(3)
    figure = heatmap_figure(names, heat(names))
    assert figure is not None
    axes = figure.axes[0]
    low, high = axes.collections[0].get_clim()
    assert low == -high == -1.5
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["-1.50"] * 3 + ["0.00"] * 3 + ["-0.50", "-0.40", "-0.30"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["weak", "strong", "worst case"]
    # The third row keeps the mask, which its paper's attack does not.
    frames: list[Any] = list(axes.patches)
    assert [frame.get_xy() for frame in frames] == [(0, 0), (1, 0)]


def test_a_missing_attack_is_blank_and_a_map_without_numbers_is_left_out() -> None:
    names = board(2)
    frame = heat(names)
    frame.loc[0, "slc"] = np.nan
    figure = heatmap_figure(names, frame)
    assert figure is not None
    assert len(figure.axes[0].texts) == 5
    assert not any("nan" in text.get_text() for text in figure.axes[0].texts)
    assert heatmap_figure(names.assign(slc=np.nan), frame.assign(slc=np.nan)) is None


def test_figures_of_an_empty_run_are_left_out() -> None:
    names = board(2).assign(slc=np.nan)
    curves = pd.DataFrame(columns=CURVE_COLUMNS)
    paths = pd.DataFrame(columns=PATH_COLUMNS)
    assert task_figures(names, curves, paths, heat(names).assign(slc=np.nan), "val") == {}


def test_names_are_no_formulas_and_the_style_does_not_leak(tmp_path: Path) -> None:
    names = board(2).replace({"defense_0": "$x^", "defense_1": r"\frac_$"})
    frame = heat(names).replace({"weak": "$y_"})
    curves = pd.DataFrame(
        [(d, "dense", n, 0, 0.3, 0.2, 0.5) for d in names["defense"] for n in (10, 100)],
        columns=CURVE_COLUMNS,
    )
    paths = pd.DataFrame(columns=PATH_COLUMNS)
    before = dict(matplotlib.rcParams)
    figures = task_figures(names, curves, paths, frame, "val")
    assert set(figures) == {"learning_curves", "attack_heatmap", "intactness"}
    for name, figure in figures.items():
        png = save(figure, tmp_path / f"{name}-a-b.c")
        assert (tmp_path / f"{name}-a-b.c.png").read_bytes() == png
        assert (tmp_path / f"{name}-a-b.c.pdf").read_bytes().startswith(b"%PDF")
        with Image.open(tmp_path / f"{name}-a-b.c.png") as image:
            assert image.width == 1400
    assert dict(matplotlib.rcParams) == before
