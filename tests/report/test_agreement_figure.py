"""The figure of how well two scores agree: its points, its correlation and its data."""

import boards
import numpy as np
import pytest
from scipy.stats import spearmanr

from ntbench.measure.agreement import COLUMNS
from ntbench.report.agreement import agreement_data, agreement_figure
from ntbench.report.style import NARROW, WIDE, styled


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_every_point_stands_at_its_distance_and_score(width: float) -> None:
    with styled():
        figure = agreement_figure(boards.agreeing(), width)
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    drawn = {tuple(xy) for line in axes.lines for xy in np.asarray(line.get_xydata()).tolist()}
    assert drawn == set(zip(boards.agreeing().frechet, boards.agreeing().score, strict=True))
    figure.draw_without_rendering()
    said = [label.get_text() for label in axes.get_xticklabels(which="both") if label.get_text()]
    assert {"10", "20"} <= set(said) and all(float(text) > 0 for text in said)
    rho = spearmanr(boards.agreeing().score, boards.agreeing().frechet).statistic
    assert f"Spearman {rho:.2f} [" in axes.get_title(loc="left") and "12 points" in axes.get_title(loc="left")


def test_its_data_have_the_correlation_beside_the_points() -> None:
    data = agreement_data(boards.agreeing())
    assert data[list(COLUMNS)].equals(boards.agreeing())
    assert data["spearman"].unique() == pytest.approx(spearmanr(data["score"], data["frechet"]).statistic)
    assert (data["spearman_low"] < data["spearman"]).all() and (data["spearman"] < data["spearman_high"]).all()


def test_few_points_draw_nothing() -> None:
    assert agreement_figure(boards.agreeing(3)) is None
