"""Every defense has as many trials, the same ones whoever asks, and the best that keeps the source is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fabricated import outcome, trajectory

from ntbench.engine.plan import plan
from ntbench.engine.trials import FAILED, LOST, SEED, TRIAL, UNUSABLE
from ntbench.engine.tune import RIVALS, Found, granted, searches, tuned
from ntbench.errors import UserError
from ntbench.registry import registry
from ntbench.suite import AttackEntry, DefenseEntry, Suite
from ntbench.types import Cell, Level, Protection, Result

Judge = Callable[[dict[str, Any]], dict[str, Any]]


class Laboratory:
    """Computes cells of which every number is known: scores and protections follow from a defense's values."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.stored: dict[str, Result] = {}
        self.ran: list[str] = []

    def __call__(self, cells: list[Cell]) -> list[Result]:
        for cell in cells:
            if cell.key not in self.stored:
                self.ran.append(cell.key)
                self.stored[cell.key] = self._result(cell)
        return [self.stored[cell.key] for cell in reversed(cells)]

    def _result(self, cell: Cell) -> Result:
        if cell.defense.label != TRIAL:
            return outcome(cell, trajectory([{"none": 0.8, "scratch": 0.4}[cell.defense.name]], ends=cell.budget.ends))
        said: dict[str, Any] = {"score": 0.6, "drop": 0.0, "status": "ok"} | self.judge(cell.defense.params)
        protection = Protection(status=said["status"], source_before=0.9, protect_steps=30, protect_flops=500)
        if said["status"] != "ok":
            return Result(cell=cell, status=said["status"], protection=protection)
        protection = protection.model_copy(update={"source_after": 0.9 - said["drop"]})
        return outcome(cell, trajectory([said["score"]], ends=cell.budget.ends), protection=protection)


@pytest.fixture
def bare(tiny: Suite) -> Suite:
    """A suite of one task that lets three of its four rows be tuned."""
    rows = tuple(DefenseEntry(name=name) for name in ("none", "magnitude", "ntl"))
    stated = DefenseEntry(name="magnitude", label="sparse", params={"sparsity": 0.9})
    return tiny.model_copy(update={"defenses": (*rows, stated), "tuned": 6})


def found(suite: Suite, cache: Path, judge: Judge, laboratory: Laboratory | None = None) -> tuple[Found, Laboratory]:
    laboratory = laboratory or Laboratory(judge)
    return tuned(suite, cache, laboratory, lambda line: None), laboratory


def sparsest(params: dict[str, Any]) -> dict[str, Any]:
    """Sparser releases leak less and lose more, the default of 0.98 too much."""
    return {"score": 0.9 - params["sparsity"] / 2, "drop": params["sparsity"] - 0.93} if "sparsity" in params else {}


def test_the_least_leak_within_the_limit_on_source_drop_is_taken(bare: Suite, cache: Path) -> None:
    suite = bare.model_copy(update={"defenses": (DefenseEntry(name="magnitude"),)})
    specs, laboratory = found(suite, cache, sparsest)
    spec = specs["digits-digits_m", "magnitude"]
    trials = [r.cell.defense for r in laboratory.stored.values() if r.cell.defense.label == TRIAL]
    tried = {trial.params["sparsity"] for trial in trials}
    kept = [sparsity for sparsity in tried if sparsity - 0.93 <= bare.max_drop]
    assert 0.98 in tried and 0 < len(kept) < len(tried)
    assert spec.params["sparsity"] == max(kept) and spec.tuning is not None
    assert spec.tuning.kept["sparsity"] == min(kept)
    assert spec.tuning.drop == pytest.approx(max(kept) - 0.93, abs=1e-4)
    # Uplift over scratch at .4, over that of none at .8.
    assert spec.tuning.leak == pytest.approx((0.5 - max(kept) / 2) / 0.4, abs=1e-4)


def test_every_defense_has_as_many_trials_and_its_cost_is_all_of_theirs(bare: Suite, cache: Path) -> None:
    specs, laboratory = found(bare, cache, sparsest)
    assert specs.keys() == {("digits-digits_m", row) for row in ("magnitude", "ntl", "sparse")}
    rounds = [r for r in laboratory.stored.values() if r.cell.defense.label == TRIAL]
    each = len(RIVALS) * 2
    for spec in specs.values():
        assert spec.tuning is not None and spec.tuning.trials == bare.tuned == 6
        # Budgets of 4 steps at each of two counts, and 30 steps to protect.
        assert spec.tuning.steps == 6 * (each * 4 + 30) and spec.tuning.flops == 6 * (each * 4 * 10**6 + 500)
    assert len(rounds) == 3 * 6 * each
    assert (
        specs["digits-digits_m", "ntl"].params["steps"] == registry.get("defense", "ntl").model_fields["steps"].default
    )


def test_what_a_suite_states_stays(bare: Suite, cache: Path) -> None:
    specs, _ = found(bare, cache, sparsest)
    spec = specs["digits-digits_m", "sparse"]
    assert spec.params["sparsity"] == 0.9 and spec.label == "sparse"
    assert spec.tuning is not None and spec.tuning.names == ("ramp", "lr", "tune_lr")


def test_the_same_trials_come_out_the_same_and_fewer_are_their_beginning(bare: Suite, cache: Path) -> None:
    (whole, first), (again, second) = found(bare, cache, sparsest), found(bare, cache, sparsest)
    assert whole == again and first.ran == second.ran
    _, short = found(bare.model_copy(update={"tuned": 3}), cache, sparsest)
    assert short.ran == first.ran[: len(short.ran)]


def test_an_interrupted_search_goes_on_and_computes_nothing_twice(bare: Suite, cache: Path) -> None:
    whole, laboratory = found(bare, cache, sparsest)
    cut = Laboratory(sparsest)
    cut.stored = {key: laboratory.stored[key] for key in laboratory.ran[:50]}
    resumed, _ = found(bare, cache, sparsest, cut)
    assert resumed == whole
    assert cut.ran == laboratory.ran[50:]


@pytest.mark.parametrize(
    ("status", "merit"), [("unusable", UNUSABLE), ("error", FAILED), ("timeout", FAILED), ("diverged", FAILED)]
)
def test_trials_without_a_release_stand_behind_all_others(bare: Suite, cache: Path, status: str, merit: float) -> None:
    def judge(params: dict[str, Any]) -> dict[str, Any]:
        return {"status": status} if params.get("sparsity", 0) > 0.97 else {"drop": 0.2}

    search = next(iter(searches(bare, cache)))
    laboratory = Laboratory(judge)
    for _ in range(6):
        search.tell(laboratory(search.ask()))
    merits = {trial.values["sparsity"] > 0.97: trial.merit for trial in search.trials}
    assert merits == {True: merit, False: pytest.approx(LOST + 0.2)}
    assert search.best.merit == pytest.approx(LOST + 0.2) and search.spec.tuning is not None
    assert search.spec.tuning.kept == {}
    assert "none kept the source within 2 points, at best leak 0.50, source drop 20.0 points" in str(search)


def test_trials_face_attacks_that_the_board_does_not_have(bare: Suite, cache: Path) -> None:
    same = AttackEntry(name="finetune", label="mine", params=RIVALS[0].params)
    suite = bare.model_copy(update={"attacks": (*bare.attacks, same)})
    _, laboratory = found(suite.model_copy(update={"tuned": 1}), cache, sparsest)
    own = [cell.attack.recipe() for cell in plan(suite)]
    faced = {result.cell.attack.label for result in laboratory.stored.values()}
    assert faced == {rival.label for rival in RIVALS[1:]}
    assert not [r for r in laboratory.stored.values() if r.cell.attack.recipe() in own]
    every = tuple(rival.model_copy(update={"label": f"mine {rival.label}"}) for rival in RIVALS)
    with pytest.raises(UserError, match="tiny-1 has every attack that tuning goes by; leave out"):
        found(bare.model_copy(update={"attacks": every}), cache, sparsest)


def test_trials_are_rehearsals_on_a_seed_of_their_own(bare: Suite, cache: Path) -> None:
    _, laboratory = found(bare.model_copy(update={"tuned": 1, "horizon": 32.0}), cache, sparsest)
    kinds = {(r.cell.defense.name, r.cell.task.rehearsal) for r in laboratory.stored.values()}
    assert kinds == {("none", "source"), ("scratch", "source"), ("magnitude", "source"),
                     ("none", "target"), ("scratch", "target"), ("ntl", "target")}  # fmt: skip
    assert {r.cell.seed for r in laboratory.stored.values()} == {SEED}
    assert {r.cell.budget.steps / r.cell.budget.unit for r in laboratory.stored.values()} == {8.0}


def test_counts_are_the_largest_that_the_rehearsed_pool_has(bare: Suite, cache: Path) -> None:
    def counts(*samples: int) -> dict[str, list[int]]:
        levels = tuple(Level(samples=count, t90=0.5) for count in samples)
        task = bare.tasks[0].model_copy(update={"levels": levels})
        suite = bare.model_copy(update={"tasks": (task,)})
        return {s.row: [level.samples for level in s.task.levels] for s in searches(suite, cache)}

    # Of 1200 images a defender holds 600, of which 480 are no validation images; half of them are the inner attackers'.
    assert counts(12, 48, 200, 600)["ntl"] == [48, 200]
    assert counts(300, 600)["ntl"] == [60, 240]


@pytest.mark.parametrize(
    ("name", "guarded", "kind"),
    [
        ("magnitude", None, "source"),
        ("magnitude", (), "source"),
        ("ntl", None, "target"),
        ("ntl", (), None),
        ("immunize", None, "source"),
        ("immunize", (), None),
        ("none", None, None),
    ],
)
def test_what_a_defense_is_tuned_on_is_what_its_access_grants(
    tiny: Suite, name: str, guarded: tuple[str, ...] | None, kind: str | None
) -> None:
    task = tiny.tasks[0].model_copy(update={"defended": guarded})
    assert granted(registry.get("defense", name), task) == kind
