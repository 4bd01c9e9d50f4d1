"""What an attack adds: against two boards of which one has it, and a rise that is known by design."""

from typing import Any

import numpy as np
import pytest
from fabricated import COUNTS, GAIN, additive, grid, row, suite, with_bits

from ntbench.measure.added import added_table
from ntbench.measure.board import leaderboard_table

NEW = "other"


def score(name: str, attack: str, samples: int, seed: int) -> float:
    """The new attack reaches .04 more on sophon than any other; the others reach .3 more than the new one on none."""
    level = 0.3 if name.startswith("scratch") else {"none": 0.6, "sophon": 0.4}[name]
    if attack == NEW:
        level += {"sophon": 0.04, "none": -0.3}.get(name, 0)
    return level + (0.0 if name == "scratch" else 0.002 * seed)


ROWS = (("none", "dense"), ("scratch", "dense"), ("sophon", "dense"))
RESULTS = list(grid(score, ROWS, refusing=False))
NEW_ONES = [r for r in RESULTS if r.cell.attack.label == NEW]


def test_the_rise_is_what_the_attack_reaches_more_and_leak_is_that_of_the_whole_board() -> None:
    # All results are given as those of others: runs of the new attack among them are left out.
    table: Any = added_table(RESULTS, NEW_ONES, suite()).set_index("defense")
    assert list(table.index) == ["none", "sophon"]
    assert table.loc["sophon", ["rise", "rise_low", "rise_high"]].to_list() == pytest.approx([0.04] * 3)
    assert table.loc["none", ["rise", "rise_low", "rise_high"]].to_list() == pytest.approx([0.0] * 3)
    assert table["taken"].to_dict() == {"none": 0.0, "sophon": 1.0}
    assert table["wins"].to_dict() == {"none": False, "sophon": True}
    whole = leaderboard_table(RESULTS, suite())
    before = leaderboard_table([r for r in RESULTS if r.cell.attack.label != NEW], suite())
    for name, board in (("leak", whole), ("leak_before", before)):
        for end in ("", "_low", "_high"):
            assert table.loc["sophon", name + end] == pytest.approx(row(board, "sophon")["leak" + end])
    assert (table["steps"] == 80).all() and (table["flops"] == 80e6).all() and (table["seconds"] == 40).all()


def test_the_rise_is_paired_by_seed_and_image() -> None:
    results = list(with_bits(additive))
    new = [r for r in results if r.cell.attack.label == "strong"]
    table: Any = added_table(results, new, suite()).set_index(["defense", "mask"])
    whole = leaderboard_table(results, suite())
    before = leaderboard_table([r for r in results if r.cell.attack.label != "strong"], suite())
    for defense in ("none", "ntp"):
        found = table.loc[(defense, "dense")]
        rise = row(whole, defense)["uplift"] - row(before, defense)["uplift"]
        assert found["rise"] == pytest.approx(rise) and found["rise_low"] < rise < found["rise_high"]
    assert GAIN["none"] > GAIN["ntp"] and len(COUNTS) == 3


def test_without_others_there_is_no_rise_and_the_attack_stands_alone() -> None:
    table: Any = added_table([], NEW_ONES, suite()).set_index("defense")
    assert table[["rise", "leak_before", "speedup_before"]].isna().all(axis=None)
    assert table.loc["sophon", "uplift"] == pytest.approx(0.144, abs=1e-9) and np.isfinite(table.loc["sophon", "leak"])


def test_no_new_results_add_nothing() -> None:
    assert added_table(RESULTS, [], suite()).empty
