"""What one hyper-parameter changes, from fabricated results whose leak is known to table, figure and files."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
import pytest
from fabricated import LEVEL, additive, grid, suite

from ntbench.measure.ablations import COLUMNS, ablations_table, changes
from ntbench.report.ablations import ablations_figure
from ntbench.report.glossary import GLOSSARIES
from ntbench.report.page import report_files
from ntbench.report.style import NARROW, WIDE, styled
from ntbench.report.tables import Tables
from ntbench.suite import Suite

GAINS = {"none": 0.2, "scratch": 0.0, "sophon": 0.04, "klu": 0.1, "redraw 0": 0.15, "both": 0.2, "ntp": 0.1}
ROWS = [(name, "dense") for name in GAINS]


def score(row: str, attack: str, samples: int, seed: int) -> float:
    return LEVEL[attack] + GAINS[row] + 0.01 * (seed - 2)


def ablating() -> Suite:
    rows: list[dict[str, Any]] = [{"name": name} for name in ("none", "scratch", "sophon", "ntp")]
    rows += [
        {"name": "sophon", "label": "klu", "params": {"loss": "klu"}},
        {"name": "sophon", "label": "redraw {redraw:g}", "grid": {"redraw": [0.0]}},
        {"name": "sophon", "label": "both", "params": {"loss": "klu", "redraw": 0.0}},
    ]
    return suite(defenses=rows)


def test_rows_that_change_one_thing_stand_below_the_first_of_their_defense() -> None:
    table = ablations_table(grid(score, rows=ROWS), ablating())
    assert table["changed"].tolist() == ["", "loss klu", "redraw 0"] and set(table["family"]) == {"sophon"}
    assert table["leak"].tolist() == pytest.approx([0.2, 0.5, 0.75])
    assert table["defense"].tolist() == ["sophon", "klu", "redraw 0"]


def test_what_changes_two_things_or_the_permitted_drop_is_no_ablation() -> None:
    found = changes(ablating())
    assert "both" not in found and found["klu"] == ("sophon", "loss klu") and found["ntp"] == ("ntp", "")
    rows = [{"name": "ntp", "label": "{tolerance:g}", "grid": {"tolerance": [0.01, 0.05]}}]
    assert changes(suite(defenses=rows)) == {"0.01": ("0.01", "")}


def test_what_the_first_row_has_of_its_own_counts_too() -> None:
    first = {"name": "sophon", "label": "first", "params": {"loops": 3, "loss": "klu"}}
    more = {"name": "sophon", "label": "{loops} {loss}", "grid": {"loops": [3, 9], "loss": ["klu", "ice"]}}
    found = changes(suite(defenses=[first, more]))
    assert found == {"first": ("first", ""), "9 klu": ("first", "loops 9"), "3 ice": ("first", "loss ice")}


def test_a_suite_with_such_rows_gets_figure_table_and_data() -> None:
    files = report_files(Tables.of(list(grid(score, rows=ROWS, refusing=False)), ablating()), ablating(), {})
    assert {f"figures/ablations-a-b.{kind}" for kind in ("pdf", "png", "svg", "csv")} <= files.keys()
    table = pd.read_csv(io.BytesIO(files["ablations.csv"]))
    assert set(table.columns) == set(GLOSSARIES["ablations.csv"])
    for name in ("index.html", "leaderboard.md", "beside.tex"):
        assert "Leak where one hyper-parameter is changed" in files[name].decode(), name


def test_other_suites_have_none_of_it() -> None:
    files = report_files(Tables.of(list(grid(additive)), suite()), suite(), {})
    assert not [name for name in files if "ablation" in name]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_family_has_a_panel_and_every_row_a_line(width: float) -> None:
    table = ablations_table(grid(score, rows=ROWS), ablating())
    with styled():
        figure = ablations_figure(pd.concat([table, table.assign(family="other")]), width)
        assert ablations_figure(pd.DataFrame(columns=list(COLUMNS)), width) is None
    assert figure is not None
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["sophon", "other"]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["sophon", "loss klu", "redraw 0"]
