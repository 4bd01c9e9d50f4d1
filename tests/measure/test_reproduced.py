"""What a paper's protocol gives, from runs that nobody computed."""

from __future__ import annotations

import math
from typing import Any

import pytest
from fabricated import TASK, outcome, recipe, suite, trajectory

from ntbench.measure.board import leaderboard_table
from ntbench.measure.collect import collect
from ntbench.measure.reproduced import Reproduction
from ntbench.measure.tables import results_table
from ntbench.suite import Suite
from ntbench.types import Epochs, Result, Trajectory

COUNTS, SEEDS = (10, 100, 1000), (0, 1)
LAST = Epochs(epochs=3, each=2)
BEST = Epochs(epochs=3, each=2, select="best test")
PATHS = {"scratch": (0.2, 0.5, 0.4), "none": (0.6, 0.5, 0.7), "ntp": (0.1, 0.2, 0.3)}


def paper_suite(**changes: Any) -> Suite:
    entries = [
        {"name": "finetune", "label": "theirs", "protocol": {"epochs": 3, "select": "best test"}},
        {"name": "finetune", "label": "protected", "grid": {"mask": ["dense", "keep"]}, "protocol": {"epochs": 3}},
    ]
    rows = [
        {"name": "none"},
        {"name": "scratch"},
        {"name": "ntp", "paper": {"attack": "protected", "mask": "keep", "scratch": "theirs"}},
    ]
    whole: dict[str, Any] = {"attacks": entries, "defenses": rows, "paper": {"attack": "theirs"}, "default": ""}
    return suite(**whole | changes)


def run(row: str, samples: int, seed: int, shift: float = 0.0, **fields: Any) -> Result:
    attack, mask, budget = ("protected", "keep", LAST) if row == "ntp" else ("theirs", "dense", BEST)
    test = [score + shift + 0.01 * seed for score in PATHS[row]]
    path = trajectory(test if budget.select != "last" else test[-1:], ends=BEST.ends)
    return outcome(recipe(row, attack, samples, seed, mask=mask, budget=budget), path, **fields)


def runs(rows: tuple[str, ...] = tuple(PATHS), counts: tuple[int, ...] = COUNTS) -> list[Result]:
    return [run(row, n, seed) for row in rows for n in counts for seed in SEEDS]


def test_each_side_reports_the_pass_that_its_paper_reports() -> None:
    found = {r.row: (r.score, r.passes) for r in Reproduction.of(runs(), paper_suite()).runs if r.seed == 0}
    assert found == {"scratch": (0.5, 2), "none": (0.7, 3), "ntp": (0.3, 3)}


def test_the_area_is_between_a_row_and_the_papers_own_scratch() -> None:
    found = Reproduction.of(runs(), paper_suite())
    # Both sides differ by the same at every count and seed: that, times ln(1000 / 10).
    for row, gap in (("ntp", 0.3 - 0.5), ("none", 0.7 - 0.5), ("scratch", 0.0)):
        assert found.number(TASK.name, row, "slc") == pytest.approx((gap * math.log(100),) * 3)
    reached = found.number(TASK.name, "ntp", "accuracy")
    assert reached == pytest.approx((0.305, 0.3, 0.31)) and found.seeds(TASK.name, "ntp") == 2


def test_facts_of_the_release_are_means_over_seeds() -> None:
    found = Reproduction.of(runs(), paper_suite())
    assert found.number(TASK.name, "ntp", "source") == pytest.approx((0.9785, 0.978, 0.979))
    assert found.number(TASK.name, "ntp", "drop") == pytest.approx((0.0115, 0.011, 0.012))
    assert found.number(TASK.name, "ntp", "zero_shot").point == pytest.approx(0.1)


def test_a_seed_that_lacks_a_run_has_no_area_and_a_failed_run_no_score() -> None:
    whole = runs()
    gone = [r for r in whole if (r.cell.defense.label, r.cell.samples, r.cell.seed) != ("ntp", 100, 0)]
    broken = run("ntp", 100, 0, status="diverged", error="the loss is nan")
    shifted = [run("ntp", n, 1, shift=0.1) for n in COUNTS]
    others = [r for r in gone if (r.cell.defense.label, r.cell.seed) != ("ntp", 1)]
    found = Reproduction.of([*others, broken, *shifted], paper_suite())
    assert found.number(TASK.name, "ntp", "slc").point == pytest.approx(-0.1 * math.log(100))
    assert [(r.score, r.passes) for r in found.runs if r.status == "diverged"] == [(None, 0)]
    empty = Reproduction.of([], paper_suite()).number(TASK.name, "ntp", "slc")
    assert math.isnan(empty.point)


def test_protocols_enter_no_worst_case_and_stand_among_the_results() -> None:
    table = results_table(runs())
    assert len(table) == len(runs()) and table["t90"].isna().all() and (table["budget"] == 6).all()
    assert collect(runs(), paper_suite()) == [] and len(leaderboard_table(runs(), paper_suite())) == 0
    ours = outcome(recipe("none", "weak", 10, 0), trajectory([0.9]))
    (curves,) = collect([*runs(), ours], paper_suite())
    assert [attack.label for attack in curves.attacks] == ["weak"] and curves.counts == (10,)


def test_what_does_not_apply_is_no_run() -> None:
    refused = run("none", 10, 0).model_copy(update={"status": "inapplicable", "trajectory": Trajectory()})
    assert Reproduction.of([refused], paper_suite()).runs == []


def test_counts_that_the_suite_has_no_more_are_left_out() -> None:
    few = TASK.model_copy(update={"levels": TASK.levels[:2]})
    found = Reproduction.of(runs(), paper_suite(tasks=[few]))
    assert found.counts(TASK.name) == [10, 100]
    assert found.number(TASK.name, "ntp", "slc").point == pytest.approx(-0.2 * math.log(10))
