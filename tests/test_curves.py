"""What may stand in one table, what is kept apart, and which split an attack is chosen on."""

from collections.abc import Iterator

import pytest
from fabricated import RATIOS, SEEDS, SPAN, additive, grid, result, row, suite

from ntbench.errors import UserError
from ntbench.ranking import leaderboard_table
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
