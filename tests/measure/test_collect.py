import re
from typing import Any

import numpy as np
import pytest
from fabricated import BUDGET, COUNTS, ENDS, SEEDS, TASK, additive, grid, outcome, recipe, refused, suite, trajectory

from ntbench.errors import UserError
from ntbench.measure.collect import collect
from ntbench.measure.curves import STATES
from ntbench.types import Budget, Level, Provenance, Trajectory


def test_every_number_is_at_its_place_whatever_the_order() -> None:
    results = list(grid(additive))
    curves = collect(reversed(results), suite())[0]
    assert [r.label for r in curves.releases] == ["none", "scratch", "ntp", "sophon"]
    assert [(a.label, a.mask) for a in curves.attacks][:3] == [("weak", "dense"), ("weak", "keep"), ("strong", "dense")]
    assert (curves.counts, curves.seeds, curves.ends) == (COUNTS, SEEDS, (ENDS,) * 3)
    for r in results:
        label, mask = r.cell.attack.label, r.cell.mask
        i = [release.label for release in curves.releases].index(r.cell.defense.label)
        a = curves.find(label, mask)
        place = (i, a, COUNTS.index(r.cell.samples), r.cell.seed)
        assert STATES[curves.grid.state[place]] == r.status
        if r.status == "ok":
            assert curves.grid.test[place].tolist() == list(r.trajectory.test)
            assert curves.grid.cost[0][place].tolist() == list(r.trajectory.step)


def test_budgets_are_aligned_at_the_horizon() -> None:
    levels = (Level(samples=10, t90=1.0), Level(samples=100, t90=10.0))
    task = TASK.model_copy(update={"levels": levels})
    results = [
        outcome(recipe("none", "weak", n, 0, task=task, budget=b), trajectory([0.1, 0.2], ends=b.ends))
        for n, b in ((10, Budget(t90=1.0)), (100, Budget(t90=10.0)))
    ]
    curves = collect(results, suite(tasks=[task]))[0]
    assert curves.end_steps[0].tolist()[-4:] == [1, 2, 4, 8]
    assert np.isnan(curves.end_steps[0][:3]).all()
    assert curves.grid.test[0, 0, :, 0, -2:].tolist() == [[0.1, 0.2], [0.1, 0.2]]


def test_a_check_beyond_the_horizon_enters_nothing() -> None:
    beyond = outcome(recipe("none", "longer", 10, 0, method="longer"), trajectory([0.9]))
    assert len(collect([*grid(additive), beyond], suite())[0].attacks) == 6


@pytest.mark.parametrize(
    ("cell", "run", "fields", "said"),
    [
        ({"protocol": "tiny-2"}, [0.5], {}, "two protocols are mixed: tiny-1 and tiny-2"),
        ({"budget": Budget(t90=20.0)}, [0.5], {}, "two budgets are mixed at 10 samples"),
        ({"params": {"lr": 0.1}}, [0.5], {}, "two results stand for none under weak (dense) at 10 samples, seed 0"),
        ({"seed": 7}, [0.5], {"data": "d2"}, "b/train has the digests d1 and d2"),
    ],
)
def test_results_that_do_not_belong_together(cell: Any, run: list[float], fields: Any, said: str) -> None:
    given = {"seed": 0, **cell}
    provenance = Provenance(data={"b/train": fields.get("data", "d1")}, versions={}, device="cpu")
    budget = given.get("budget", BUDGET)
    other = outcome(recipe("none", "weak", 10, **given), trajectory(run, ends=budget.ends), provenance=provenance)
    with pytest.raises(UserError, match=re.escape(said)):
        collect([*grid(additive), other], suite())


def test_a_score_at_no_budget() -> None:
    run = Trajectory(**{**trajectory([0.5]).model_dump(), "step": (37,)})
    with pytest.raises(UserError, match="37 steps, which is none of its budgets"):
        collect([outcome(recipe("none", "weak", 10, 0), run)], suite())


def test_a_refusal_is_not_faced_and_keeps_its_reason() -> None:
    curves = collect([*grid(additive, refusing=False), refused(recipe("none", "weak", 10, 0, mask="keep"))], suite())[0]
    assert list(curves.refused.values()) == ["it cannot"]
    assert not curves.faced[0, curves.find("weak", "keep")]


def test_runs_that_lack_which_images_were_right_are_judged_by_their_scores() -> None:
    results = [
        outcome(
            recipe("none", "weak", 10, s), trajectory([0.5], right=[np.ones(4)] if s else None), images=4, originals=4
        )
        for s in SEEDS
    ]
    assert collect(results, suite())[0].originals == 0
    assert collect(results[1:], suite())[0].originals == 4


def test_other_knowledge_is_kept_apart() -> None:
    results = [
        outcome(recipe("none", "weak", 10, 0, knowledge=k), trajectory([score], own=[0.4]))
        for k, score in (("others", 0.5), ("own", 0.3))
    ]
    curves = collect(results, suite())[0]
    assert curves.own is not None
    assert (curves.grid.test[0, 0, 0, 0, -1], curves.own.test[0, 0, 0, 0, -1]) == (0.5, 0.3)
    assert curves.own.own[0, 0, 0, 0, -1] == 0.4
