"""A metric of somebody's own through the doors: behind an engine's it runs in a process of its own."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Inside
from small_board import PAIR, small_results, small_suite

import ntbench
from ntbench.engine.apart import Bounds
from ntbench.engine.foreign import ForeignMetric
from ntbench.engine.measuring import measure
from ntbench.engine.session import Session
from ntbench.measure.board import leaderboard_table
from ntbench.measure.registered import known, measured, row_of
from ntbench.measure.standing import Study
from ntbench.method import Metric, Row, register
from ntbench.registry import Registry, registry

PLUGIN = '''"""A plug-in."""
import os, sys, time
import numpy as np
from ntbench.method import Metric, register

@register
class Few(Metric):
    """Gain at the fewest samples."""

    name = "few"
    better = "lower"

    def measure(self, row):
        BODY
        return row.attacker[0] - row.baseline[0]

@register
class Elsewhere(Metric):
    """Where it runs."""

    name = "elsewhere"
    better = "higher"

    def measure(self, row):
        return None if row.defense == "scratch" else os.getpid()
'''
STUDY = Study(small_results(), small_suite())
ROWS = [row_of(standing) for standing in STUDY.standings]


def file(folder: Path, body: str = "pass") -> Path:
    path = folder / "few.py"
    path.write_text(PLUGIN.replace("BODY", body), encoding="utf-8")
    return path


def test_another_process_gives_the_same_numbers(foreign: Registry, tmp_path: Path) -> None:
    foreign.load_plugin(str(file(tmp_path)))
    elsewhere, few = known()
    assert issubclass(few, ForeignMetric) and few.meaning() == "Gain at the fewest samples. Lower is better."
    assert not [name for name, module in sys.modules.items() if getattr(module, "__file__", "") == str(tmp_path)]
    found = measured(STUDY, (elsewhere, few)).table.set_index(["defense", "mask"])
    here = found["elsewhere"].dropna()
    assert len(here) == len(ROWS) - 1 and here.nunique() == 1 and here.iloc[0] != os.getpid()
    for row in ROWS:
        assert found.loc[(row.defense, row.mask), "few"] == pytest.approx((row.attacker[0] - row.baseline[0]).mean())


@pytest.mark.parametrize(
    ("body", "said", "lost"),
    [
        ("if row.defense == 'ntp': raise ValueError('boom')", "ValueError: boom", 2),
        ("if row.defense == 'sophon': os._exit(0)", "the process of the method ended", 4),
        ("time.sleep(600)", "took longer than 1 seconds", 5),
        ("if row.defense == 'sophon': return np.zeros(10**6)", "is longer than it can be", 4),
    ],
)
def test_what_goes_wrong_there_is_told(foreign: Registry, tmp_path: Path, body: str, said: str, lost: int) -> None:
    foreign.load_plugin(str(file(tmp_path, body)))
    rows = sorted(ROWS, key=lambda row: ["none", "sophon", "ntp", "scratch"].index(row.defense))
    seconds = 1.0 if "sleep" in body else 60.0
    answers = list(measure("few", rows, Bounds(seconds)))
    assert len(answers) == len(rows) == 5
    assert [said in answer.error for answer in answers].count(True) == lost, answers
    if lost < len(rows):
        assert answers[0].found == pytest.approx((rows[0].attacker[0] - rows[0].baseline[0]).tolist())


def test_an_installed_package_offers_metrics(
    own_registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file(tmp_path).rename(tmp_path / "few_package.py")
    monkeypatch.syspath_prepend(tmp_path)
    point = type("Point", (), {"value": "few_package", "load": lambda self: importlib.import_module(self.value)})
    monkeypatch.setattr("ntbench.registry.entry_points", lambda group: [point()])
    for name, value in (("_discovered", False), ("_installed", set())):
        monkeypatch.setattr(own_registry, name, value)
    assert [metric.name for metric in known()] == ["elsewhere", "few"] and registry.packages() == {"few_package": ""}
    monkeypatch.delitem(sys.modules, "few_package")


def test_a_notebook_has_its_columns_and_is_warned(own_registry: Registry, small_run: Path) -> None:
    run = ntbench.load(small_run)
    before = run.leaderboard()

    @register
    class Spread(Metric):
        """Scores of the strongest seed less those of the weakest."""

        name = "spread"
        better = "lower"

        def measure(self, row: Row) -> Any:
            assert row.defense != "sophon", "not this one"
            return float(row.release.mean(axis=0).max() - row.release.mean(axis=0).min())

    with pytest.warns(
        UserWarning, match="metric spread has no number for sophon .a-b, target.: AssertionError: not this"
    ):
        found = run.leaderboard()
    pd.testing.assert_frame_equal(found[list(before.columns)], before)
    table = found.set_index(["defense", "mask"])["spread"]
    means = next(row for row in ROWS if row.defense == "none").release.mean(axis=0)
    assert table["none", "dense"] == pytest.approx(means.max() - means.min()) and pd.isna(table["sophon", "dense"])
    assert "spread" in run.leaderboard(), "without a second warning"
    assert "spread" not in run._repr_html_()


def test_a_report_has_its_columns_and_nothing_else_moves(inside: Inside, small_run: Path, tmp_path: Path) -> None:
    run, plugin = tmp_path / "run", file(tmp_path, "if row.defense == 'ntp': raise ValueError('<b>boom</b>')")
    shutil.copytree(small_run, run)
    done = inside("report", run, "--plugin", plugin, "--wide")
    assert done.exit_code == 0, done.output
    said = "metric few has no number for ntp (mask kept) (a-b, target) and ntp (a-b, target): ValueError: <b>boom</b>"
    assert "Metrics of plug-ins" in done.output and "failed" in done.output and said in done.output
    table, board = pd.read_csv(run / "report/leaderboard.csv"), leaderboard_table(STUDY, small_suite())
    assert [*table.columns][: len(board.columns)] == [*board.columns]
    assert [*table.columns][-4:] == ["few", "few_low", "few_high", "few_error"]
    pd.testing.assert_series_equal(table["leak"], board["leak"], check_exact=False, atol=1e-6)
    assert table["verdict"].fillna("").tolist() == board["verdict"].tolist()
    assert table["few_error"].fillna("").tolist() == [
        "ValueError: <b>boom</b>" * (d == "ntp") for d in table["defense"]
    ]
    page = (run / "report/index.html").read_text(encoding="utf-8")
    assert page.count("Gain at the fewest samples. Lower is better.") == 2, "over its column, and among all columns"
    assert "<b>boom</b>" not in page and f"{PAIR.title}" in page
    headline = page.partition("<thead>")[2].partition("</thead>")[0]
    assert headline.count("<th ") == 7 and "few" not in headline


def test_a_page_of_other_metrics_is_stale(small_run: Path, tmp_path: Path) -> None:
    def stamp(*plugins: Path) -> str:
        return Session(small_run, None, [*map(str, plugins)]).stamp  # type: ignore[arg-type]

    plugin = file(tmp_path)
    with_it = stamp(plugin)
    assert stamp() == stamp() != with_it == stamp(plugin)
    file(tmp_path, "row = row")
    assert stamp(plugin) != with_it


def test_a_name_that_is_taken_stops_a_command_before_it_begins(inside: Inside, tmp_path: Path) -> None:
    plugin = file(tmp_path)
    plugin.write_text(plugin.read_text().replace('"few"', '"uplift"'))
    done = inside("run", "smoke", "--plugin", plugin, "--out", tmp_path / "run")
    said = "would have the column 'uplift', which is a column of the leaderboard; rename it"
    assert done.exit_code == 2 and said in done.stderr and not list(tmp_path.glob("run/artifacts/*"))


def test_lists_and_checks_know_it(inside: Inside, own_registry: Registry, tmp_path: Path) -> None:
    plugin = file(tmp_path)
    done = inside("list", "--plugin", plugin)
    assert "few        Gain at the fewest samples. Lower is better." in done.output, done.output
    assert "\nmetrics" in done.output
