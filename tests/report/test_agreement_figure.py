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
    figure.draw_without_rendering()
    for axes, (samples, points) in zip(figure.axes, boards.agreeing().groupby("samples"), strict=True):
        assert axes.get_xscale() == "log"
        drawn = {tuple(xy) for line in axes.lines for xy in np.asarray(line.get_xydata()).tolist()}
        assert drawn == set(zip(points.frechet, points.score, strict=True))
        said = [label.get_text() for label in axes.get_xticklabels(which="both") if label.get_text()]
        assert {"10", "20"} <= set(said) and all(float(text) > 0 for text in said)
        rho = spearmanr(points.score, points.frechet).statistic
        title = axes.get_title(loc="left")
        assert title.startswith(f"{samples} samples: Spearman {rho:.2f} [") and title.endswith("], 6 points")


def test_its_data_have_the_correlation_beside_the_points() -> None:
    data = agreement_data(boards.agreeing())
    assert data[list(COLUMNS)].sort_index().equals(boards.agreeing())
    for _, part in data.groupby("samples"):
        assert part["spearman"].unique() == pytest.approx(spearmanr(part["score"], part["frechet"]).statistic)
    assert (data["spearman_low"] < data["spearman"]).all() and (data["spearman"] < data["spearman_high"]).all()


def test_few_points_draw_nothing() -> None:
    assert agreement_figure(boards.agreeing(3)) is None
