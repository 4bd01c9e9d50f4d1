"""The figure and the table of leak by permitted drop, from fabricated results to files."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fabricated import LEVEL, additive, grid, suite
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from ntbench.report.glossary import GLOSSARIES
from ntbench.report.page import report_files
from ntbench.report.panels import permitted_figure
from ntbench.report.style import NARROW, VERDICTS, WIDE, styled
from ntbench.report.tables import Tables
from ntbench.suite import Suite

GAINS = {"none": 0.2, "scratch": 0.0, "ntp-0.01": 0.15, "ntp-0.02": 0.1, "ntp-0.05": 0.04}
NAME = "permitted-a-b"


def score(row: str, attack: str, samples: int, seed: int) -> float:
    return LEVEL[attack] + GAINS[row] + 0.01 * (seed - 2)


def permitting() -> Suite:
    varied = {"name": "ntp", "label": "ntp-{tolerance:g}", "grid": {"tolerance": [0.01, 0.02, 0.05]}}
    return suite(defenses=[{"name": "none"}, {"name": "scratch"}, varied])


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    found = list(grid(score, rows=[(row, "dense") for row in GAINS], refusing=False))
    return report_files(Tables.of(found, permitting()), permitting(), {})


def test_a_suite_with_such_rows_gets_figure_table_and_data(files: dict[str, bytes]) -> None:
    assert {f"figures/{NAME}.{kind}" for kind in ("pdf", "png", "svg")} <= files.keys()
    table = pd.read_csv(io.BytesIO(files["permitted.csv"]))
    assert set(table.columns) == set(GLOSSARIES["permitted.csv"])
    assert table["leak"].tolist() == pytest.approx([0.75, 0.5, 0.2])
    page = files["index.html"].decode()
    assert page.count("Over the permitted source drop.") == 1 and "permitted.csv" in page
    for name in ("index.html", "leaderboard.md", "beside.tex"):
        assert "Leak by permitted source drop" in files[name].decode(), name


def test_other_suites_have_none_of_it() -> None:
    files = report_files(Tables.of(list(grid(additive)), suite()), suite(), {})
    assert not [name for name in files if "permitted" in name]
    assert "permitted source drop" not in files["index.html"].decode()


def drawn(**changes: Any) -> pd.DataFrame:
    columns = {"family": "ntp", "mask": "dense", "permitted": [0.01, 0.02, 0.05], "verdict": ["leaks", "open", "holds"]}
    leaks = {"leak": [0.7, 0.4, 0.05], "leak_low": [0.6, 0.0, -0.1], "leak_high": [0.9, 0.5, 0.1]}
    return pd.DataFrame(columns | leaks | changes)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_every_row_is_a_point_of_its_verdict_with_its_interval(width: float) -> None:
    with styled():
        figure = permitted_figure(drawn(), width)
    assert figure is not None
    (axes,) = figure.axes
    points = [line for line in axes.get_lines() if line.get_marker() not in ("None", "")]
    assert [float(np.asarray(line.get_xdata())[0]) for line in points] == pytest.approx([1, 2, 5])
    assert [float(np.asarray(line.get_ydata())[0]) for line in points] == pytest.approx([0.7, 0.4, 0.05])
    assert [to_hex(line.get_color()) for line in points] == [VERDICTS[said][0] for said in drawn()["verdict"]]
    bars = [path.vertices for c in axes.collections if isinstance(c, LineCollection) for path in c.get_paths()]
    assert [bar[:, 1].tolist() for bar in map(np.asarray, bars)] == [[0.6, 0.9], [0.0, 0.5], [-0.1, 0.1]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "5"]
    assert axes.get_title(loc="left") == "ntp"


def test_a_family_has_a_panel_and_a_row_without_an_interval_a_point_alone() -> None:
    one = drawn(leak_low=np.nan, leak_high=np.nan)
    with styled():
        figure = permitted_figure(pd.concat([one, one.assign(mask="keep"), one.assign(family="x")]))
        assert permitted_figure(drawn().iloc[:0]) is None
    assert figure is not None
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["ntp", "ntp (kept)", "x"]
