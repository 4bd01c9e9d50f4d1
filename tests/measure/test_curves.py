"""What may stand in one table, what is kept apart, and which split an attack is chosen on."""

from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest
from fabricated import (
    ATTACKS,
    RATIOS,
    SEEDS,
    SPAN,
    STEPS,
    additive,
    grid,
    refused,
    result,
    row,
    suite,
    trajectory,
)

from ntbench.errors import UserError
from ntbench.measure.curves import Selection, collect, so_far
from ntbench.measure.ranking import leaderboard_table
from ntbench.types import Provenance, Result, Task, Training


def test_mixed_results_are_refused() -> None:
    whole = list(grid(additive))
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
    cells = [*grid(additive), *grid(additive, task=tasks[0], provenance=other)]
    board = leaderboard_table(cells, suite(tasks=tasks))
    assert board.task.tolist() == ["a-c"] * 5 + ["a-b"] * 5
    assert board[board.ranked]["rank"].tolist() == [1, 2, 3, 1, 2, 3]


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


VAL = (0.1, 0.2, 0.6, 0.6, 0.5, 0.4)
TEST = (0.1, 0.2, 0.3, 0.5, 0.7, 0.6)


@pytest.mark.parametrize(("rule", "score", "outcome"), [("last", 0.4, 0.6), ("val", 0.6, 0.3), ("oracle", 0.7, 0.7)])
def test_each_rule_chooses_its_step(rule: Selection, score: float, outcome: float) -> None:
    run = trajectory(TEST).model_copy(update={"val": VAL})
    cells = [result("none", "weak", ratio, seed, 0.6, trajectory=run) for ratio in RATIOS for seed in SEEDS]
    (curves,) = collect(cells, suite())
    weak = curves.attacks.index("weak")
    np.testing.assert_array_equal(curves.scores[rule][0, weak], score)
    np.testing.assert_array_equal(curves.outcomes[rule][0, weak], outcome)
    np.testing.assert_array_equal(curves.under(0, "weak"), 0.6)


def test_attacks_are_chosen_by_what_the_rule_chose_within_them() -> None:
    # The best step on validation data, the best last step there, and the best step on test data.
    paths = {
        "weak": ((0.9, 0.1), (0.5, 0.2)),
        "strong": ((0.2, 0.8), (0.2, 0.4)),
        "other": ((0.3, 0.3), (0.7, 0.1)),
    }
    cells = []
    for name, (val, test) in paths.items():
        run = trajectory(test, steps=(40, 80)).model_copy(update={"val": val})
        cells += [result("none", name, ratio, seed, 0, trajectory=run) for ratio in RATIOS for seed in SEEDS]
    (curves,) = collect(cells, suite())
    chosen = {rule: (curves.worst(0, rule)[0][0], curves.worst(0, rule)[1][0, 0]) for rule in get_args(Selection)}
    assert chosen == {"last": ("strong", 0.4), "val": ("weak", 0.5), "oracle": ("other", 0.7)}


@pytest.mark.parametrize("rule", get_args(Selection))
def test_so_far_is_what_each_prefix_would_choose(rule: Selection) -> None:
    random = np.random.default_rng(0)
    # Few values, so that there are ties; NaN where a run has not been scored yet.
    val, test = random.integers(0, 4, (2, 50, 6)) / 4 + np.array([0.0, 0.01])[:, None, None] * random.random((2, 50, 6))
    val[::3, :2], test[::3, :2] = np.nan, np.nan
    score, outcome = so_far(rule, val, test)
    for i in range(50):
        for k in range(6):
            known = [j for j in range(k + 1) if np.isfinite(val[i, j])]
            if not known:
                assert np.isnan(score[i, k]) and np.isnan(outcome[i, k])
                continue
            chooser = test if rule == "oracle" else val
            best = known[-1] if rule == "last" else max(known, key=lambda j: (chooser[i, j], -j))
            assert (score[i, k], outcome[i, k]) == (chooser[i, best], test[i, best])


def test_what_is_not_applicable_counts_nowhere() -> None:
    whole = list(grid(additive))
    board = leaderboard_table(whole, suite())
    cells = grid(lambda *_: 0.9, (("sophon", "keep"),))
    assert leaderboard_table([*whole, *map(refused, cells)], suite()).to_csv() == board.to_csv()
    # Of three attacks one can face the defense, and goes well: nothing is missing.
    one = [refused(r) if _is(r, "sophon", "strong") or _is(r, "sophon", "other") else r for r in whole]
    found = row(leaderboard_table(one, suite()), "sophon")
    assert (found.cells, found.failed, found.thin, found.note) == (9, 0, False, "")
    assert found.worst_attack == "weak" and found.slc == pytest.approx(-0.3 * SPAN) and found["rank"] == 1
    # Of two that can, one diverges.
    diverged = {"status": "diverged", "error": "nan"}
    two = [refused(r) if _is(r, "sophon", "strong") else r for r in whole]
    two = [r.model_copy(update=diverged) if _is(r, "sophon", "other") else r for r in two]
    found = row(leaderboard_table(two, suite()), "sophon")
    assert (found.cells, found.failed, found.thin, found.note) == (18, 9, True, "")
    assert leaderboard_table(map(refused, whole), suite()).empty


def test_an_attack_that_the_suite_keeps_from_a_row_is_not_missing_there() -> None:
    whole = [r for r in grid(additive) if not _is(r, "sophon", "strong")]
    assert row(leaderboard_table(whole, suite()), "sophon").note == "9 of 27 cells have not run"
    attacks = [{"name": "finetune", "label": name} for name in ATTACKS]
    for against in (["ntp"], ["ntp", "none", "scratch"]):
        narrow = suite(attacks=[attacks[0], attacks[1] | {"against": against}, attacks[2]])
        assert row(leaderboard_table(whole, narrow), "sophon").note == ""
    named = suite(attacks=[attacks[0], attacks[1] | {"against": ["sophon"]}, attacks[2]])
    assert row(leaderboard_table(whole, named), "sophon").note == "9 of 27 cells have not run"


def _is(r: Result, defense: str, attack: str) -> bool:
    return (r.cell.defense.label, r.cell.attack.label) == (defense, attack)


def test_runs_of_other_lengths_stand_beside_each_other() -> None:
    long = trajectory((0.1, 0.9, 0.3), steps=(80, 160, 320))
    short = trajectory((0.8,), steps=(3,))
    cells = [result("none", "weak", ratio, seed, 0.6) for ratio in RATIOS for seed in SEEDS]
    for name, run in (("auto", long), ("strong", short)):
        cells += [result("none", name, ratio, seed, 0, trajectory=run) for ratio in RATIOS for seed in SEEDS]
    (curves,) = collect(cells, suite())
    assert curves.attacks == (*ATTACKS, "auto") and curves.auto.tolist() == [False, False, False, True]
    ends = {name: curves.outcomes["val"][0, a, 0, 0] for a, name in enumerate(curves.attacks)}
    assert ends == {"weak": 0.6, "strong": 0.8, "other": pytest.approx(np.nan, nan_ok=True), "auto": 0.9}
    assert curves.under(0, "auto")[0, 0] == 0.3
    last = {name: curves.cost["steps"][0, a, 0, -1] for a, name in enumerate(curves.attacks)}
    assert last == {"weak": STEPS[-1], "strong": 3, "other": pytest.approx(np.nan, nan_ok=True), "auto": 320}
    assert curves.test_path.shape == (1, 4, 3, 6)
