"""Published numbers beside ours."""

import math
from typing import Any

import numpy as np
import pytest
from fabricated import LEVELS, suite
from ntbench.leaderboard.literature import beside, numbers

from ntbench.types import Arch, Task

ROW: dict[str, Any] = {"defense": "ntl", "paper_slc": 0.5, "slc": 0.1}
TASK = Task(source="mnist", target="usps", levels=LEVELS)


def test_every_number_is_below_what_accuracies_allow() -> None:
    for known in numbers():
        assert known.slc and all(abs(area) < known.range for area in known.slc.values())
        assert known.setting and known.arch


def test_areas_over_different_ranges_are_divided_by_them() -> None:
    (line,) = beside(suite(), TASK, [ROW])
    assert line["published"] == f"-0.94 ({-94 / 6.91:+.1f})"
    assert line["ours"] == f"+0.50 ({50 / math.log(100):+.1f})"
    assert line["strongest"] == f"+0.10 ({10 / math.log(100):+.1f})"


@pytest.mark.parametrize(("arch", "kind"), [("vgg11", "reproduced"), ("cnn", "transposed")])
def test_only_the_papers_network_on_its_data_is_reproduced(arch: str, kind: str) -> None:
    (line,) = beside(suite(arch=Arch(name=arch)), TASK, [ROW])
    assert line["kind"] == kind


@pytest.mark.parametrize(
    ("source", "row"),
    [("digits", ROW), ("mnist", ROW | {"defense": "x"}), ("mnist", ROW | {"paper_slc": np.nan})],
)
def test_rows_of_other_settings_have_nothing_beside_them(source: str, row: dict[str, Any]) -> None:
    assert list(beside(suite(), Task(source=source, target="usps", levels=LEVELS), [row])) == []
