"""Leak by permitted drop of fabricated rows, whose leak is known."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from fabricated import LEVEL, grid, result, row, suite

from ntbench.measure.board import leaderboard_table
from ntbench.measure.permitted import COLUMNS, families, permitted_table
from ntbench.suite import Suite

GAINS = {"none": 0.2, "scratch": 0.0, "ntp-0.01": 0.15, "ntp-0.02": 0.1, "ntp-0.05": 0.04, "sophon": 0.12}
ROWS = [(name, "dense") for name in GAINS]


def score(name: str, attack: str, samples: int, seed: int) -> float:
    return LEVEL[attack] + GAINS[name.removesuffix(" keep")] + 0.01 * (seed - 2)


def permitting(*more: dict[str, Any], drops: tuple[float, ...] = (0.05, 0.01, 0.02)) -> Suite:
    varied = {"name": "ntp", "label": "ntp-{tolerance:g}", "grid": {"tolerance": list(drops)}}
    return suite(defenses=[{"name": "none"}, {"name": "scratch"}, varied, {"name": "sophon"}, *more])


def test_leak_is_that_of_each_row_the_smallest_permitted_drop_first() -> None:
    found = list(grid(score, rows=ROWS))
    table = permitted_table(found, permitting())
    assert table["permitted"].tolist() == [0.01, 0.02, 0.05] and set(table["family"]) == {"ntp"}
    assert table["leak"].tolist() == pytest.approx([0.75, 0.5, 0.2])
    board = leaderboard_table(found, permitting())
    for told in table.to_dict("records"):
        names = ("leak", "leak_low", "leak_high", "drop", "drop_low", "drop_high", "verdict")
        assert [told[name] for name in names] == row(board, str(told["defense"]))[[*names]].tolist()


def test_the_attacker_who_keeps_zeros_has_a_family_of_its_own() -> None:
    kept = [(name, "keep") for name in GAINS if name.startswith("ntp")]
    table = permitted_table(grid(score, rows=[*ROWS, *kept]), permitting())
    assert table.groupby("mask").size().to_dict() == {"dense": 3, "keep": 3}


@pytest.mark.parametrize(
    "built",
    [suite(), permitting(drops=(0.02,)), permitting({"name": "sophon", "label": "b", "params": {"tolerance": 0.05}})],
    ids=["none given", "one of a defense", "one more of another defense"],
)
def test_one_permitted_drop_is_no_family(built: Suite) -> None:
    rows = [place for place in ROWS if place[0] in ("none", "scratch", "sophon", "ntp-0.02")]
    table = permitted_table(grid(score, rows=rows), built)
    assert table.empty and list(table.columns) == list(COLUMNS)


def test_rows_that_differ_in_more_than_the_permitted_drop_are_other_families() -> None:
    varied = {"label": "{loss} {tolerance:g}", "grid": {"loss": ["ice", "klu"], "tolerance": [0.01, 0.05]}}
    found = families(permitting({"name": "sophon", "params": {"loops": 3}} | varied))
    assert found["ice 0.01"] == ("sophon, loops 3, loss ice", 0.01)
    assert found["ice 0.05"] == ("sophon, loops 3, loss ice", 0.05)
    assert found["klu 0.05"] == ("sophon, loops 3, loss klu", 0.05)
    assert found["ntp-0.02"] == ("ntp", 0.02) and "sophon" not in found


def test_a_row_whose_defense_released_nothing_is_left_out() -> None:
    lost = [(name, mask) for name, mask in ROWS if name != "ntp-0.01"]
    found = [*grid(score, rows=lost)]
    for place in ((attack, n, seed) for attack in LEVEL for n in (10, 100, 1000) for seed in range(5)):
        found.append(result("ntp-0.01", *place, 0.0, path=[], status="unusable", error="lost the source"))
    table: pd.DataFrame = permitted_table(found, permitting())
    assert table["permitted"].tolist() == [0.02, 0.05]
