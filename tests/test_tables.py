"""Tables of synthetic results whose numbers are known in closed form."""

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ntbench.errors import UserError
from ntbench.suite import Suite
from ntbench.tables import (
    TIMING,
    failures_table,
    heatmap_table,
    leaderboard_table,
    learning_curves,
    results_table,
    trajectories_table,
)
from ntbench.types import Arch, Budget, Cell, MethodSpec, Protection, Provenance, Result, Task, Training, Trajectory

RATIOS = (0.01, 0.1, 1.0)
SAMPLES = {0.01: 10, 0.1: 100, 1.0: 1000}
SEEDS = (0, 1, 2)
STEPS = (0, 5, 10, 20, 40, 80)
BUDGET = Budget(steps=80, samples=2560, scored=STEPS[1:])
SPAN = np.log(100)
Accuracy = Callable[[str, str, float, int], float]


def suite(**changes: Any) -> Suite:
    values: dict[str, Any] = {
        "name": "tiny",
        "version": 1,
        "summary": "three attacks",
        "seeds": SEEDS,
        "ratios": RATIOS,
        "arch": Arch(name="cnn"),
        "pretrain": Training(),
        "budget": BUDGET,
        "paper": {"attack": "weak"},
        "tasks": [Task(source="a", target="b")],
        "defenses": [
            {"name": "none"},
            {"name": "scratch"},
            {"name": "ntp", "paper": {"attack": "weak", "mask": "keep"}},
            {"name": "sophon"},
        ],
        "attacks": [{"name": "finetune", "label": name} for name in ("weak", "strong", "other")],
    }
    return Suite.model_validate(values | changes)


def result(
    defense: str,
    attack: str,
    ratio: float,
    seed: int,
    final: float,
    *,
    val: float | None = None,
    mask: str = "dense",
    task: str = "b",
    path: tuple[float, ...] | None = None,
    **fields: Any,
) -> Result:
    spec: dict[str, Any] = {"version": 1, "code": "c"}
    params = {"name": attack, "mask": mask}
    cell = Cell(
        protocol="tiny-1",
        task=Task(source="a", target=task),
        arch=Arch(name="cnn"),
        pretrain=Training(),
        budget=BUDGET,
        defense=MethodSpec(kind="defense", name=defense.split("-")[0], params={}, label=defense, **spec),
        attack=MethodSpec(kind="attack", name="finetune", params=params, label=attack, **spec),
        ratio=ratio,
        seed=seed,
    )
    test = path or (*(0.1,) * 5, final)
    shift = (val if val is not None else final) - final
    run = Trajectory(
        step=STEPS,
        samples=tuple(32 * s for s in STEPS),
        flops=tuple(10**6 * s for s in STEPS),
        seconds=tuple(0.5 * s for s in STEPS),
        val=tuple(v + shift for v in test),
        test=test,
    )
    values: dict[str, Any] = {
        "status": "ok",
        "samples": SAMPLES.get(ratio),
        "protection": Protection(
            source_before=0.99,
            source_after=0.98 + 0.005 * (seed - 1),
            zero_shot=0.1,
            sparsity=0.5,
            pretrain_seconds=4.0,
            pretrain_flops=200,
            protect_seconds=6.0,
            protect_flops=700,
        ),
        "trajectory": run,
        "provenance": Provenance(data={"b/train": "d1"}, versions={"ntbench": "0.1"}, device="cpu"),
        "seconds": 1.25,
        "peak_mb": 300.0,
    }
    return Result(cell=cell, **(values | fields))


def grid(accuracy: Accuracy, rows: tuple[tuple[str, str], ...], **fields: Any) -> Iterator[Result]:
    for defense, mask in rows:
        for attack in ("weak", "strong", "other"):
            for ratio in RATIOS:
                for seed in SEEDS:
                    final = accuracy(defense + mask, attack, ratio, seed)
                    yield result(defense, attack, ratio, seed, final, mask=mask, **fields)


ROWS = (("none", "dense"), ("scratch", "dense"), ("ntp", "dense"), ("ntp", "keep"), ("sophon", "dense"))
GAIN = {"nonedense": 0.2, "scratchdense": 0.0, "ntpdense": 0.1, "ntpkeep": -0.3, "sophondense": -0.1}


def additive(row: str, attack: str, ratio: float, seed: int) -> float:
    """A gap to scratch that is the same at every ratio: SLC-AUC is gap * ln 100."""
    level = {"weak": 0.3, "strong": 0.5, "other": 0.4}[attack]
    return level + GAIN[row] + 0.05 * float(np.log10(ratio)) + 0.01 * (seed - 1) * (row != "scratchdense")


def row(table: pd.DataFrame, defense: str, mask: str = "dense") -> Any:
    found = table[(table.defense == defense) & (table["mask"] == mask)]
    assert len(found) == 1
    return found.iloc[0]


@pytest.fixture(scope="module")
def board() -> pd.DataFrame:
    return leaderboard_table(grid(additive, ROWS), suite())


def test_results_are_the_same_bytes_for_any_order() -> None:
    results = list(grid(additive, ROWS))
    first = results_table(results).to_csv(index=False)
    shuffled = random.Random(0).sample(results, len(results))
    assert results_table(shuffled).to_csv(index=False) == first
    assert trajectories_table(shuffled).to_csv() == trajectories_table(results).to_csv()
    assert leaderboard_table(shuffled, suite()).to_csv() == leaderboard_table(results, suite()).to_csv()
    times = [
        {"pretrain_seconds": 1.0, "protect_seconds": float(k) if k % 27 < 24 else None} for k in range(len(results))
    ]
    timed = [r.model_copy(update={"protection": Protection(**t)}) for r, t in zip(results, times, strict=True)]
    ratios = [leaderboard_table(order, suite()).protect_seconds_ratio.tolist() for order in (timed, timed[::-1])]
    assert ratios[0] == ratios[1] and np.isfinite(ratios[0]).all()
    # Nor may an integer column turn to floats when one cell lacks it.
    results[0] = results[0].model_copy(update={"samples": None})
    assert first.splitlines()[-1] in results_table(results).to_csv(index=False)


def test_one_result_fills_its_columns() -> None:
    cell = result("ntp", "weak", 0.1, 2, 0.25, val=0.35, mask="keep")
    table = results_table([cell])
    assert tuple(table.columns[-5:]) == TIMING
    values = table.iloc[0].to_dict()
    assert values["test_accuracy"] == 0.25 and values["val_accuracy"] == 0.35
    expected: dict[str, Any] = {
        "protocol": "tiny-1",
        "task": "a-b",
        "arch": "cnn",
        "defense": "ntp",
        "attack": "weak",
        "mask": "keep",
    }
    expected |= {"ratio": 0.1, "samples": 100, "seed": 2, "status": "ok", "error": "", "steps": 80}
    expected |= {"train_samples": 2560, "flops": 80_000_000, "source_before": 0.99, "source_after": 0.985}
    expected |= {"zero_shot": 0.1, "sparsity": 0.5, "pretrain_flops": 200, "protect_flops": 700, "version": "0.1"}
    expected |= {"key": cell.cell.key, "seconds": 40.0, "cell_seconds": 1.25, "pretrain_seconds": 4.0}
    expected |= {"protect_seconds": 6.0, "peak_mb": 300.0}
    assert {name: values[name] for name in expected} == expected
    assert set(values) - set(expected) == {"test_accuracy", "val_accuracy", "data"}


def test_a_diverged_cell_has_a_reason_and_no_accuracy() -> None:
    bad = result("ntp", "weak", 0.1, 0, 0.4, status="diverged", error="loss is nan\nat step 3")
    empty = result("ntp", "weak", 1.0, 0, 0.4, status="error", error="E", trajectory=Trajectory(), protection=None)
    values = results_table([bad]).iloc[0]
    assert values["error"] == "loss is nan" and np.isnan(values["test_accuracy"]) and values["steps"] == 80
    failures = failures_table([bad, empty, result("ntp", "weak", 0.01, 0, 0.4)])
    assert failures[["ratio", "status", "error"]].to_numpy().tolist() == [
        [0.1, "diverged", "loss is nan"],
        [1.0, "error", "E"],
    ]


def test_trajectories_are_long() -> None:
    table = trajectories_table([result("ntp", "weak", 0.1, 2, 0.25, val=0.35)])
    assert len(table) == 2 * len(STEPS)
    last = table[(table.step == 80) & (table.split == "val")].iloc[0]
    assert (last.value, last.train_samples, last.flops, last.seconds, last.samples_n) == (0.35, 2560, 8e7, 40, 100)


def test_empty_input_gives_the_same_columns(board: pd.DataFrame) -> None:
    assert list(leaderboard_table([], suite()).columns) == list(board.columns)
    assert list(results_table([]).columns) == list(results_table([result("none", "weak", 1, 0, 0.5)]).columns)
    assert len(trajectories_table([])) == len(failures_table([])) == len(learning_curves([], suite())) == 0


@pytest.mark.parametrize(("defense", "mask"), ROWS)
def test_slc_of_a_constant_gap(board: pd.DataFrame, defense: str, mask: str) -> None:
    found, gap = row(board, defense, mask), GAIN[defense + mask]
    spread = 0.0 if defense == "scratch" else 0.01
    assert found.slc == pytest.approx(gap * SPAN) and found.slc_norm == pytest.approx(gap)
    assert found.slc_low == pytest.approx((gap - spread) * SPAN)
    assert found.slc_high == pytest.approx((gap + spread) * SPAN)
    assert found.worst_attack == "strong" and found.worst_attacks == "strong; strong; strong"


def test_slc_recomputes_from_the_results_table(board: pd.DataFrame) -> None:
    cells = results_table(grid(additive, ROWS))
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
    board = leaderboard_table([r for r in grid(additive, ROWS) if r.cell.seed == 1], suite())
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
    keep = row(leaderboard_table(grid(additive, ROWS), dense), "ntp", "keep")
    assert keep.paper_attack == "" and np.isnan(keep.paper_slc) and np.isnan(keep.paper_overhead)


def test_val_selection_reports_the_test_accuracy_of_its_choice() -> None:
    def cells() -> Iterator[Result]:
        for defense in ("scratch", "none"):
            for ratio in RATIOS:
                for seed in SEEDS:
                    yield result(defense, "weak", ratio, seed, 0.3 if defense == "none" else 0.5, val=0.9)
                    yield result(defense, "strong", ratio, seed, 0.7, val=0.2)

    feasible = row(leaderboard_table(cells(), suite()), "none")
    oracle = row(leaderboard_table(cells(), suite(), "oracle"), "none")
    assert feasible.slc == pytest.approx(-0.2 * SPAN) and feasible.worst_attack == "weak"
    assert oracle.slc == pytest.approx(0) and oracle.worst_attack == "strong"
    with pytest.raises(UserError, match="did you mean 'oracle'"):
        leaderboard_table(cells(), suite(), "oracl")


def paths(defense: str, attack: str, seed: int) -> tuple[float, ...]:
    """Scratch reaches 0.72 = 0.9 * 0.8 at step 10, `sophon` at 40, at 80 or never."""
    if attack != "strong":
        return (0.1 if defense == "scratch" else 0.05,) * 6
    if defense == "scratch":
        return (0.1, 0.5, 0.72, 0.8, 0.8, 0.8)
    return [(0.1, 0.1, 0.1, 0.5, 0.75, 0.8), (0.1, 0.1, 0.1, 0.5, 0.5, 0.8), (0.1, 0.1, 0.1, 0.5, 0.5, 0.6)][seed]


def timed(defenses: tuple[str, ...] = ("scratch", "sophon"), late: int = 0) -> Iterator[Result]:
    for defense in defenses:
        for attack in ("weak", "strong", "other"):
            for ratio in RATIOS:
                for seed in SEEDS:
                    path = paths(defense, attack, min(seed + late * (defense == "sophon"), 2))
                    path = path if ratio == 1 else tuple(accuracy / 2 for accuracy in path)
                    yield result(defense, attack, ratio, seed, path[-1], path=path)


def test_overheads_in_every_cost() -> None:
    board = leaderboard_table(timed(), suite(paper={"attack": "strong"}))
    found, scratch = row(board, "sophon"), row(board, "scratch")
    for cost in ("steps", "samples", "flops", "seconds"):
        assert found[f"overhead_{cost}_90"] == 8
        assert found[f"overhead_{cost}_90_censored"] == pytest.approx(1 / 3)
        assert found[f"overhead_{cost}_90_restricted"] == pytest.approx((4 + 8 + 8) / 3)
        assert [scratch[f"overhead_{cost}_{q}"] for q in (50, 80, 90, 95)] == [1, 1, 1, 1]
    assert found.overhead_steps_50 == 4 and found.overhead_steps_95 == 4
    assert found.paper_overhead == 8 and found.paper_overhead_censored == pytest.approx(1 / 3)


def test_censored_overheads_are_lower_bounds() -> None:
    found = row(leaderboard_table(timed(late=1), suite(paper={"attack": "strong"})), "sophon")
    assert found.overhead_steps_90 == 8 and found.overhead_steps_90_censored == pytest.approx(2 / 3)
    assert found.overhead_steps_95 == 4 and found.overhead_steps_95_restricted == 4


def test_the_paper_overhead_is_measured_against_matched_scratch() -> None:
    # Under the weak attack scratch stays at 0.1 and passes 0.9 * 0.1 at step 0, which counts as its first step, 5.
    board = leaderboard_table(timed(), suite())
    found = row(board, "sophon")
    assert (found.paper_overhead, found.paper_overhead_censored, found.overhead_steps_90) == (80 / 5, 1, 8)
    assert row(board, "scratch").paper_overhead == 1


def replaced(path: Callable[[int], tuple[float, ...]], attack: str, **fields: Any) -> Iterator[Result]:
    """Yield `timed` with other curves of `sophon` under one attack, by seed; no curve leaves its cell out."""
    for r in timed():
        _, defense, label, _, ratio, seed = r.cell.coordinates
        if (defense, label) != ("sophon", attack):
            yield r
        elif curve := path(seed):
            yield result(defense, label, ratio, seed, curve[-1], path=curve, **fields)


def test_an_attack_that_lacks_a_seed_is_not_the_cheapest() -> None:
    cells = replaced(lambda seed: (0.8,) * 6 if seed else (), "other")
    assert row(leaderboard_table(cells, suite()), "sophon").overhead_steps_90 == 8


def test_the_cheapest_attack_has_the_lowest_median() -> None:
    # Once at step 5 and twice never is 55 steps in the restricted mean, less than `strong` takes; its median is not.
    cells = replaced(lambda seed: (0.1, 0.6, 0.6, 0.6, 0.6, 0.6) if seed else (0.1, *(0.8,) * 5), "other")
    found = row(leaderboard_table(cells, suite()), "sophon")
    assert (found.overhead_steps_90, found.overhead_steps_90_censored) == (8, pytest.approx(1 / 3))


def test_a_run_that_stops_early_is_censored_where_it_stops() -> None:
    def cells() -> Iterator[Result]:
        for r in timed():
            columns = {name: column[:5] for name, column in r.trajectory}
            early = r.cell.defense.label == "sophon"
            yield r.model_copy(update={"trajectory": Trajectory(**columns)}) if early else r

    found = row(leaderboard_table(cells(), suite(paper={"attack": "strong"})), "sophon")
    assert (found.paper_overhead, found.paper_overhead_censored) == (4, pytest.approx(2 / 3))


def test_the_cheapest_attack_is_chosen_on_validation_data() -> None:
    cells = list(replaced(lambda seed: (0.1, *(0.8,) * 5), "other", val=0.0))
    assert row(leaderboard_table(cells, suite()), "sophon").overhead_steps_90 == 8
    assert row(leaderboard_table(cells, suite(), "oracle"), "sophon").overhead_steps_90 == 0.5


def test_protection(board: pd.DataFrame) -> None:
    found = row(board, "sophon")
    assert (found.source_before, found.zero_shot, found.sparsity) == pytest.approx((0.99, 0.1, 0.5))
    assert (found["drop"], found.drop_low, found.drop_high) == pytest.approx((0.01, 0.005, 0.015))
    assert (found.protect_seconds_ratio, found.protect_flops_ratio) == (1.5, 3.5)
    bare = row(leaderboard_table(grid(additive, ROWS, protection=None), suite()), "sophon")
    assert np.isnan(bare["drop"]) and np.isnan(bare.protect_flops_ratio) and not bare.holds


def held(after: float = 0.98, gap: float = 0.1, fast: bool = False, ratios: tuple[float, ...] = RATIOS) -> bool:
    def cells() -> Iterator[Result]:
        protection = Protection(source_before=0.99, source_after=after)
        for attack in ("weak", "strong", "other"):
            for ratio in ratios:
                for seed in SEEDS:
                    path = paths("scratch", attack, seed)
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

    whole = list(grid(additive, ROWS))
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
    whole = list(grid(additive, ROWS))
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
    cells = [
        r for r in grid(additive, ROWS) if (r.cell.defense.label, r.cell.mask, r.cell.ratio) != ("ntp", "dense", 1)
    ]
    assert not leaderboard_table(cells, suite()).query("defense == 'ntp'").ranked.any()


def test_mixed_results_are_refused() -> None:
    whole = list(grid(additive, ROWS))
    other = Provenance(data={"b/train": "d2"}, versions={}, device="cpu")
    with pytest.raises(UserError, match=r"a-b: .*b/train.* d1 and d2; .*own run folder"):
        leaderboard_table([whole[0].model_copy(update={"provenance": other}), *whole[1:]], suite())
    cell = whole[0].cell.model_copy(update={"pretrain": Training(steps=7)})
    twice = Result.model_validate(whole[0].model_dump() | {"cell": cell.model_dump()})
    with pytest.raises(UserError, match=f"none .dense. under weak .*{whole[0].cell.key} and {twice.cell.key}"):
        leaderboard_table([*whole, twice], suite())
    with pytest.raises(UserError, match=r"\['tiny-1', 'tiny-2'\] are mixed"):
        newer = cell.model_copy(update={"protocol": "tiny-2"})
        leaderboard_table([*whole, whole[0].model_copy(update={"cell": newer})], suite())
    same = [r.model_copy(update={"samples": 10}) for r in whole]
    with pytest.raises(UserError, match="remove a ratio"):
        leaderboard_table(same, suite())


def test_tasks_are_ranked_apart() -> None:
    tasks = [Task(source="a", target="c"), Task(source="a", target="b")]
    other = Provenance(data={"c/train": "d3"}, versions={}, device="cpu")
    cells = [*grid(additive, ROWS), *grid(additive, ROWS, task="c", provenance=other)]
    board = leaderboard_table(cells, suite(tasks=tasks))
    assert board.task.tolist() == ["a-c"] * 5 + ["a-b"] * 5
    assert board[board.ranked]["rank"].tolist() == [1, 2, 3, 1, 2, 3]


def test_learning_curves() -> None:
    table = learning_curves(grid(additive, ROWS), suite())
    assert len(table) == len(ROWS) * len(RATIOS) * len(SEEDS)
    found = table[(table.defense == "ntp") & (table["mask"] == "dense") & (table.samples == 100) & (table.seed == 2)]
    expected = {"worst": 0.5 + 0.1, "paper": 0.3 - 0.3, "scratch": 0.5 - 0.01, "scratch_matched": 0.3 - 0.01}
    noise = -0.05 + 0.01
    assert found[list(expected)].iloc[0].to_dict() == pytest.approx({k: v + noise for k, v in expected.items()})


def test_heatmap_compares_every_attack_with_tuned_scratch() -> None:
    absent = [("none", "weak", "dense", ratio, 2) for ratio in RATIOS] + [("none", "other", "dense", 0.01, 2)]
    cells = [r for r in grid(additive, ROWS) if r.cell.coordinates[1:] not in absent]
    table = heatmap_table(cells, suite()).set_index(["defense", "mask", "attack"]).slc
    assert table["sophon", "dense", "weak"] == pytest.approx((-0.1 - 0.2) * SPAN)
    assert table["scratch", "dense", "strong"] == 0
    assert np.isnan(table["none", "dense", "weak"]) and np.isnan(table["none", "dense", "other"])


def test_a_grid_of_1600_cells_takes_well_under_a_second() -> None:
    rows = (("scratch", "dense"), *((f"none-{k}", "dense") for k in range(58)))
    cells = list(grid(lambda row, *place: additive("nonedense", *place), rows))
    assert len(cells) == 1593
    start = time.perf_counter()
    leaderboard_table(cells, suite())
    assert time.perf_counter() - start < 2


def test_tables_import_neither_torch_nor_plots() -> None:
    heavy = "{'torch', 'matplotlib', 'seaborn', 'sklearn'}"
    code = f"import sys, ntbench.tables; sys.exit(str({heavy} & set(sys.modules) or ''))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip() == ""
