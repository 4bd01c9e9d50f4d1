"""Which attacks carry the worst cases, against a search of every set, and on a board made to have an answer."""

from itertools import combinations
from typing import Literal

import numpy as np
import pytest
from fabricated import COUNTS, GAIN, SEEDS, grid, result, suite

from ntbench.measure.carriers import carriers_table, smallest_cover

SCORES = {"weak": {10: 0.30, 100: 0.36, 1000: 0.60}, "strong": {10: 0.50, 100: 0.60, 1000: 0.40}, "other": {}}


def score(row: str, attack: str, samples: int, seed: int) -> float:
    """Strong carries the two smaller counts, weak the largest, and other lies half a point below strong."""
    if row.startswith("scratch"):
        return 0.2
    level = SCORES[attack].get(samples) or SCORES["strong"][samples] - 0.005
    return level + GAIN[row] + 0.001 * seed


@pytest.mark.parametrize("seed", range(6))
def test_the_smallest_cover_is_that_of_a_search_of_every_set(seed: int) -> None:
    draw = np.random.default_rng(seed)
    carried = draw.random((12, 7)) < 0.35
    carried[np.arange(12), draw.integers(7, size=12)] = True
    sets = (c for size in range(8) for c in combinations(range(7), size) if carried[:, list(c)].any(axis=1).all())
    best = next(sets)
    same = [best, *(c for c in sets if len(c) == len(best))]
    assert smallest_cover(carried) == list(min(same, key=sum))


def test_a_case_that_nothing_carries_is_refused_and_no_case_needs_nothing() -> None:
    with pytest.raises(ValueError, match="no attack carries one of the cases"):
        smallest_cover(np.array([[True, False], [False, False]]))
    assert smallest_cover(np.zeros((0, 3), dtype=bool)) == []


def test_the_attacks_that_carry_are_found_with_their_shares() -> None:
    rows = (("none", "dense"), ("scratch", "dense"), ("sophon", "dense"))
    table = carriers_table(grid(score, rows, refusing=False), suite()).set_index("attack")
    assert set(table["track"]) == {"target"} and set(table["mask"]) == {"dense"} and set(table["cases"]) == {6}
    assert table["taken"].to_dict() == pytest.approx({"strong": 4 / 6, "weak": 2 / 6, "other": 0})
    assert table["alone"].to_dict() == pytest.approx({"strong": 4 / 6, "weak": 2 / 6, "other": 4 / 6})
    assert table["needed"].to_dict() == {"strong": True, "weak": True, "other": False}
    assert list(table["rows"]) == ["none; sophon", "none; sophon", ""]
    assert table["shortfall"].max() == pytest.approx(0, abs=1e-12)


def test_where_a_fresh_start_is_as_good_no_attack_is_needed() -> None:
    rows = (("none", "dense"), ("scratch", "dense"))
    found = carriers_table(grid(lambda row, a, n, s: 0.5 if row == "scratch" else 0.4, rows, refusing=False), suite())
    assert (found["free"] == len(COUNTS)).all() and not found["needed"].any()
    assert (found[["taken", "alone", "shortfall"]] == 0).all(axis=None)


@pytest.mark.parametrize(("axis", "cases", "needed"), [("samples", 3, ["slow"]), ("compute", 21, ["fast", "slow"])])
def test_on_the_axis_of_compute_every_budget_has_its_worst_case(
    axis: Literal["samples", "compute"], cases: int, needed: list[str]
) -> None:
    paths = {"fast": [0.6] * 7, "slow": [0.2] * 6 + [0.8]}
    places = [(attack, n, seed) for attack in paths for n in COUNTS for seed in SEEDS]
    found = [result("none", *place, 0.0, path=paths[place[0]]) for place in places]
    found += [result("scratch", *place, 0.0, path=[0.1] * 7) for place in places]
    table = carriers_table(found, suite(axis=axis))
    assert sorted(table[table["needed"]]["attack"]) == needed and set(table["cases"]) == {cases}
    assert table.set_index("attack")["taken"]["slow"] == pytest.approx(3 / cases)


def test_no_results_give_an_empty_table() -> None:
    assert carriers_table([], suite()).empty
