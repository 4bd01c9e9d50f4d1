"""The leaderboard of synthetic results whose numbers are known in closed form."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fabricated import (
    ATTACKS,
    BUDGET,
    GAIN,
    RATIOS,
    ROWS,
    SEEDS,
    SPAN,
    STEPS,
    additive,
    grid,
    result,
    row,
    scratch_path,
    suite,
    trajectory,
)

from ntbench.measure.ranking import leaderboard_table
from ntbench.measure.tables import results_table
from ntbench.types import Protection, Result, Trajectory


@pytest.fixture(scope="module")
def board() -> pd.DataFrame:
    return leaderboard_table(grid(additive), suite())


@pytest.mark.parametrize(("defense", "mask"), ROWS)
def test_slc_of_a_constant_gap(board: pd.DataFrame, defense: str, mask: str) -> None:
    found, gap = row(board, defense, mask), GAIN[defense + mask]
    spread = 0.0 if defense == "scratch" else 0.01
    assert found.slc == pytest.approx(gap * SPAN) and found.slc_norm == pytest.approx(gap)
    assert found.slc_low == pytest.approx((gap - spread) * SPAN)
    assert found.slc_high == pytest.approx((gap + spread) * SPAN)
    assert found.worst_attack == "strong" and found.worst_attacks == "strong; strong; strong"


def test_slc_recomputes_from_the_results_table(board: pd.DataFrame) -> None:
    cells = results_table(grid(additive))
    best = cells.pivot_table(index=["defense", "mask", "attack"], columns="samples", values="test_accuracy")
    worst: Any = best.groupby(["defense", "mask"]).max()
    gap = worst.loc[("sophon", "dense")] - worst.loc[("scratch", "dense")]
    area = np.trapezoid(gap.to_numpy(), np.log(gap.index.to_numpy(dtype=float)))
    assert row(board, "sophon").slc == pytest.approx(area)


def test_a_defense_stands_at_its_weaker_row(board: pd.DataFrame) -> None:
    ranked = board[board.ranked]
    assert ranked[["defense", "mask", "rank"]].to_numpy().tolist() == [
        ["sophon", "dense", 1],
        ["ntp", "dense", 2],
        ["none", "dense", 3],
    ]
    assert ranked.rank_low.tolist() == ranked.rank_high.tolist() == [1, 2, 3]
    assert row(board, "ntp", "keep").note == "ranked by its dense row"
    assert pd.isna(row(board, "ntp", "keep")["rank"]) and pd.isna(row(board, "scratch")["rank"])
    assert board.defense.tolist() == ["sophon", "ntp", "ntp", "none", "scratch"]
    assert board.control.tolist() == [False, False, False, True, True]


def test_rank_ranges_show_what_the_seeds_leave_open() -> None:
    def noisy(row: str, attack: str, ratio: float, seed: int) -> float:
        swing = {"sophondense": 0.25, "ntpdense": 0.0}.get(row, 0.0)
        return additive(row, attack, ratio, 1) + swing * (seed - 1)

    board = leaderboard_table(grid(noisy, ROWS), suite())
    assert [row(board, "sophon").rank_low, row(board, "sophon").rank_high] == [1, 2]
    assert [row(board, "ntp").rank_low, row(board, "ntp").rank_high] == [1, 2]
    assert [row(board, "none").rank_low, row(board, "none").rank_high] == [3, 3]


def test_one_seed_has_no_intervals() -> None:
    board = leaderboard_table([r for r in grid(additive) if r.cell.seed == 1], suite())
    found = row(board, "sophon")
    assert found.slc == pytest.approx(-0.1 * SPAN) and found["rank"] == 1 and not found.holds
    assert np.isnan(found.slc_low) and pd.isna(found.rank_low)


def test_the_papers_attack_meets_scratch_under_the_same_attack(board: pd.DataFrame) -> None:
    for mask in ("dense", "keep"):
        found = row(board, "ntp", mask)
        assert (found.paper_attack, found.paper_mask) == ("weak", "keep")
        assert found.paper_slc == pytest.approx(-0.3 * SPAN)
    assert row(board, "sophon").paper_slc == pytest.approx(-0.1 * SPAN)
    assert row(board, "scratch").paper_slc == 0
    dense = suite(defenses=[{"name": "ntp"}])
    keep = row(leaderboard_table(grid(additive), dense), "ntp", "keep")
    assert keep.paper_attack == "" and np.isnan(keep.paper_slc) and np.isnan(keep.paper_overhead)


def test_protection(board: pd.DataFrame) -> None:
    found = row(board, "sophon")
    assert (found.source_before, found.zero_shot, found.sparsity) == pytest.approx((0.99, 0.1, 0.5))
    assert (found["drop"], found.drop_low, found.drop_high) == pytest.approx((0.01, 0.005, 0.015))
    assert (found.protect_seconds_ratio, found.protect_flops_ratio) == (1.5, 3.5)
    bare = row(leaderboard_table(grid(additive, protection=None), suite()), "sophon")
    assert np.isnan(bare["drop"]) and np.isnan(bare.protect_flops_ratio) and not bare.holds


def held(after: float = 0.98, gap: float = 0.1, fast: bool = False, ratios: tuple[float, ...] = RATIOS) -> bool:
    def cells() -> Iterator[Result]:
        protection = Protection(source_before=0.99, source_after=after)
        for attack in ATTACKS:
            for ratio in ratios:
                for seed in SEEDS:
                    path = scratch_path(attack)
                    yield result("scratch", attack, ratio, seed, path[-1], path=path)
                    ours = (0.1, 0.75, 0.75, 0.75, 0.75, 0.8 - gap) if fast else (*(0.1,) * 5, 0.8 - gap)
                    yield result("sophon", attack, ratio, seed, 0.8 - gap, path=ours, protection=protection)

    return bool(row(leaderboard_table(cells(), suite()), "sophon").holds)


def test_holds_needs_all_three() -> None:
    assert held()
    assert not held(after=0.96)
    assert not held(gap=-0.01)
    assert held(gap=0.01) and not held(gap=0.01, fast=True)
    assert not held(ratios=RATIOS[1:]), "a part of the grid is not the grid"


def test_missing_cells_make_a_row_thin_not_wrong() -> None:
    def lacks(r: Result, *attacks: str) -> bool:
        return r.cell.defense.label == "sophon" and r.cell.attack.label in attacks and r.cell.seed == 2

    whole = list(grid(additive))
    failed = {"status": "diverged", "error": "nan"}
    one = leaderboard_table([r.model_copy(update=failed) if lacks(r, "strong") else r for r in whole], suite())
    found = row(one, "sophon")
    assert found.worst_attack == "other" and found.slc == pytest.approx(-0.2 * SPAN)
    assert not found.thin and (found.cells, found.failed, found.note) == (27, 3, "")
    two = row(leaderboard_table([r for r in whole if not lacks(r, "strong", "other")], suite()), "sophon")
    assert two.thin and (two.cells, two.failed) == (21, 0) and two.note == "6 of 27 cells have not run"
    once = [r for r in whole if not (lacks(r, "strong", "other") and r.cell.ratio < 0.05)]
    assert row(leaderboard_table(once, suite()), "sophon").thin
    assert two.worst_attack == "weak" and two.slc == pytest.approx(-0.3 * SPAN)


def test_partial_runs_have_reasons_instead_of_numbers() -> None:
    whole = list(grid(additive))
    alone = row(leaderboard_table([r for r in whole if r.cell.defense.label == "sophon"], suite()), "sophon")
    assert "run the control scratch" in alone.note and np.isnan(alone.slc) and np.isnan(alone.overhead_steps_90)
    small = leaderboard_table([r for r in whole if r.cell.ratio < 0.05], suite())
    assert "fewer than 2 sample ratios" in row(small, "sophon").note and small["rank"].isna().all()
    two = row(leaderboard_table([r for r in whole if r.cell.ratio < 0.5], suite()), "sophon")
    assert two.slc == pytest.approx(-0.1 * np.log(10)) and not two.ranked and not two.holds
    assert "1 of 3 sample ratios missing" in two.note
    keep = leaderboard_table([r for r in whole if r.cell.defense.label != "ntp" or r.cell.mask == "keep"], suite())
    assert row(keep, "ntp", "keep").note == "not ranked: not attacked with the mask dense"
    dead = {"status": "error", "error": "E", "trajectory": Trajectory(), "protection": None, "samples": None}
    failed = leaderboard_table([r.model_copy(update=dead) for r in whole], suite())
    assert failed.slc.isna().all() and (failed.failed == failed.cells).all() and not failed.holds.any()


def test_an_incomplete_row_cannot_hide_behind_a_complete_one() -> None:
    cells = [r for r in grid(additive) if (r.cell.defense.label, r.cell.mask, r.cell.ratio) != ("ntp", "dense", 1)]
    assert not leaderboard_table(cells, suite()).query("defense == 'ntp'").ranked.any()


def test_a_grid_of_1600_cells_takes_well_under_a_second() -> None:
    rows = (("scratch", "dense"), *((f"none-{k}", "dense") for k in range(58)))
    cells = list(grid(lambda row, *place: additive("nonedense", *place), rows))
    assert len(cells) == 1593
    start = time.perf_counter()
    leaderboard_table(cells, suite())
    assert time.perf_counter() - start < 2


def searched(gain: float, choices: tuple[str, ...] = ("adam", "sgd", "adam")) -> Iterator[Result]:
    """Yield `additive` and an automatic attack of 4 budgets that gains so much over `strong` on sophon."""
    yield from grid(additive)
    for defense, above in (("scratch", 0.0), ("sophon", gain)):
        for ratio in RATIOS:
            for seed in SEEDS:
                final = additive(f"{defense}dense", "strong", ratio, seed) + above
                run = trajectory((*(0.0,) * 5, final), steps=tuple(4 * step for step in STEPS))
                yield result(defense, "auto", ratio, seed, final, trajectory=run, choice=choices[seed])


AUTO = {"attacks": [*({"name": "finetune", "label": name} for name in ATTACKS), {"name": "auto"}]}


@pytest.mark.parametrize("gain", [-0.05, 0.3])
def test_grid_auto_and_worst_case_stand_side_by_side(gain: float) -> None:
    board = leaderboard_table(searched(gain), suite(**AUTO))
    found, worst = row(board, "sophon"), max(gain, 0)
    assert found.paper_slc == pytest.approx(-0.1 * SPAN)
    assert found.grid_slc == pytest.approx(-0.1 * SPAN) and found.grid_attack == "strong"
    assert found.auto_slc == pytest.approx((-0.1 + gain) * SPAN) and found.auto_choice == "adam"
    assert found.slc == pytest.approx((-0.1 + worst) * SPAN)
    assert found.worst_attack == ("auto" if gain > 0 else "strong")
    for name, middle in (("grid", -0.1), ("auto", -0.1 + gain)):
        ends = [found[f"{name}_slc_low"], found[f"{name}_slc_high"]]
        assert ends == pytest.approx([(middle - 0.01) * SPAN, (middle + 0.01) * SPAN])
    assert found.auto_gap == found.auto_gap_low == pytest.approx(gain)
    assert row(board, "scratch").auto_slc == row(board, "scratch").grid_slc == 0
    assert found.selection == "val" and found.needs == "source labels"


def test_what_searching_costs() -> None:
    found = row(leaderboard_table(searched(0.3), suite(**AUTO)), "sophon")
    assert found.grid_steps == len(ATTACKS) * len(RATIOS) * BUDGET.steps
    assert found.auto_steps == found.worst_steps == 4 * len(RATIOS) * BUDGET.steps
    assert row(leaderboard_table(searched(-0.05), suite(**AUTO)), "sophon").worst_steps == len(RATIOS) * BUDGET.steps


def test_a_run_that_fails_or_ends_early_costs_what_it_took() -> None:
    def cells() -> Iterator[Result]:
        for r in grid(additive):
            if r.cell.defense.label == "sophon" and r.cell.seed == 2:
                cut = {name: column[:3] for name, column in r.trajectory}
                yield r.model_copy(update={"status": "diverged", "error": "nan", "trajectory": Trajectory(**cut)})
            else:
                yield r

    found = row(leaderboard_table(cells(), suite()), "sophon")
    assert found.grid_steps == pytest.approx(9 * (80 + 80 + STEPS[2]) / 3)
    assert np.isnan(found.worst_steps) and found.worst_attack == ""


def test_a_suite_without_an_automatic_attack_has_none(board: pd.DataFrame) -> None:
    names = ["auto_slc", "auto_slc_low", "auto_slc_high", "auto_steps", "auto_gap"]
    assert board[names].isna().all(axis=None) and (board.auto_choice == "").all()
    pd.testing.assert_series_equal(board.grid_slc, board.slc, check_names=False)
    assert board.grid_attack.tolist() == board.worst_attack.tolist()


def test_the_paper_setting_is_where_its_attack_ends_under_every_rule() -> None:
    def cells() -> Iterator[Result]:
        for defense, shift in (("scratch", 0.0), ("sophon", -0.1)):
            for ratio in RATIOS:
                for seed in SEEDS:
                    peak = trajectory((0.1, 0.2, 0.9, 0.8, 0.6, 0.5 + shift))
                    yield result(defense, "weak", ratio, seed, 0.5, trajectory=peak)

    found = {rule: row(leaderboard_table(cells(), suite(), rule), "sophon") for rule in ("last", "val", "oracle")}
    assert all(record.paper_slc == pytest.approx(-0.1 * SPAN) for record in found.values())
    assert {rule: record.selection for rule, record in found.items()} == {rule: rule for rule in found}
    slc = {rule: record.slc for rule, record in found.items()}
    assert slc == pytest.approx({"last": -0.1 * SPAN, "val": 0, "oracle": 0})
