"""Published numbers beside ours."""

from __future__ import annotations

import math

import pytest
from ntbench.leaderboard.literature import beside, numbers

from ntbench.suite import load_suite

ROW = {"defense": "ntl", "paper_attack": "momentum 0.001", "paper_slc": 0.5, "slc": 0.1}


def test_every_number_belongs_to_a_row_of_a_suite() -> None:
    for known in numbers():
        suite = load_suite(known.suite)
        assert known.defense in {entry.row for entry in suite.defenses}
        assert known.slc.keys() <= {task.name for task in suite.tasks}
        assert all(abs(area) < known.range for area in known.slc.values()), "an accuracy is at most 1"


def test_areas_over_different_ranges_are_divided_by_them() -> None:
    (line,) = beside("fidelity", "mnist-usps", [ROW], (0.01, 0.1, 1.0))
    assert (line["published"], line["ours"]) == ("-0.94", "+0.50")
    assert float(line["published_mean"]) == pytest.approx(-0.94 / math.log(1000), abs=0.005)
    assert float(line["ours_mean"]) == pytest.approx(0.5 / math.log(100), abs=0.005)
    assert line["setting"] and line["distance"]


@pytest.mark.parametrize(
    ("suite", "task", "row"),
    [("quick", "mnist-usps", ROW), ("fidelity", "digits-syn", ROW), ("fidelity", "mnist-usps", ROW | {"defense": "x"})],
)
def test_rows_of_other_settings_have_nothing_beside_them(suite: str, task: str, row: dict[str, object]) -> None:
    assert list(beside(suite, task, [row], (0.1, 1.0))) == []


def test_a_row_without_the_papers_attack_is_not_compared() -> None:
    kept = ROW | {"paper_attack": ""}
    assert list(beside("fidelity", "mnist-usps", [kept], (0.1, 1.0))) == []
    assert len(list(beside("fidelity", "mnist-usps", [kept, ROW], (0.1, 1.0)))) == 1
