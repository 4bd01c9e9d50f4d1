"""T90 and plateau are found from curves that are known, with budgets that double until they suffice."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from fabricated import in_t90

from ntbench.engine.calibrate import GUESS, LONGEST, SEEDS, calibrated, guessed
from ntbench.errors import UserError
from ntbench.suite import AttackEntry, DefenseEntry, Suite
from ntbench.types import Cell, Level, Result, Trajectory

Curve = Callable[[float], float]


@pytest.fixture
def bare(tiny: Suite) -> Suite:
    """A suite that nobody has measured, with scratch among its rows and an attack that may keep a mask."""
    keep = AttackEntry(name="finetune", label="keep", params={"mask": "keep"})
    task = tiny.tasks[0].model_copy(update={"levels": (Level(samples=12), Level(samples=48))})
    rows = tuple(DefenseEntry(name=name) for name in ("none", "scratch"))
    return tiny.model_copy(update={"tasks": (task,), "defenses": rows, "attacks": (*tiny.attacks, keep), "own": True})


class Laboratory:
    """Computes cells of which every curve is known: by sample count, accuracy as a function of steps."""

    def __init__(self, **curves: Curve) -> None:
        self.curves = {int(name[1:]): curve for name, curve in curves.items()}
        self.asked: list[list[Cell]] = []

    def __call__(self, cells: list[Cell]) -> list[Result]:
        self.asked.append(cells)
        return [self._result(cell) for cell in cells]

    def _result(self, cell: Cell) -> Result:
        ends = cell.budget.ends
        reached = tuple(self.curves[cell.samples](end) for end in ends)
        zeros = (0,) * len(ends)
        run = Trajectory(
            step=ends,
            samples=zeros,
            flops=zeros,
            seconds=(0.0,) * len(ends),
            val=reached,
            test=reached,
            correct=("",) * len(ends),
            own=(None,) * len(ends),
        )
        return Result(cell=cell, status="ok", trajectory=run)


def saturating(plateau: float, scale: float) -> Curve:
    return lambda steps: plateau * (1 - math.exp(-steps / scale))


def test_t90_and_plateau_are_those_of_the_curve(bare: Suite) -> None:
    laboratory = Laboratory(n12=saturating(0.6, 10.0), n48=saturating(0.9, 40.0))
    told: list[str] = []
    few, many = calibrated(bare, laboratory, told.append).tasks[0].levels
    for level, plateau, scale in ((few, 0.6, 10.0), (many, 0.9, 40.0)):
        assert level.plateau == pytest.approx(plateau, abs=1e-3)
        # 1 - exp(-s / scale) = 0.9 at scale ln 10, read off in ln steps between budgets a factor of 2 apart.
        assert level.t90 == pytest.approx(scale * math.log(10), rel=0.12)
    assert told[0] == "digits to digits_m: measuring T90 of the baseline at 12, 48 samples"
    assert told[1].startswith("  12 samples: T90 = ") and told[1].endswith("of 512 steps, by scratch, finetune")


def test_the_budget_doubles_at_a_count_that_is_still_learning_and_at_no_other(bare: Suite) -> None:
    laboratory = Laboratory(n12=saturating(0.6, 10.0), n48=saturating(0.9, 400.0))
    _, many = calibrated(bare, laboratory, lambda line: None).tasks[0].levels
    asked = [sorted({(cell.samples, in_t90(cell).t90) for cell in cells}) for cells in laboratory.asked]
    assert asked[0] == [(12, GUESS), (48, GUESS)]
    assert asked[1:] == [[(48, GUESS * 2**k)] for k in range(1, len(asked))]
    assert many.t90 == pytest.approx(400 * math.log(10), rel=0.12)
    assert laboratory.asked[-1][0].budget.steps >= 8 * (many.t90 or 0) > laboratory.asked[-2][0].budget.steps


def test_what_never_converges_ends_at_the_longest_budget(bare: Suite) -> None:
    laboratory = Laboratory(n12=lambda steps: min(1.0, steps / 1e6), n48=saturating(0.9, 10.0))
    calibrated(bare, laboratory, lambda line: None)
    assert {in_t90(cell).t90 for cell in laboratory.asked[-1]} == {LONGEST}


def test_only_baselines_without_a_mask_are_run_on_seeds_of_their_own(bare: Suite) -> None:
    laboratory = Laboratory(n12=saturating(0.6, 10.0), n48=saturating(0.9, 10.0))
    calibrated(bare, laboratory, lambda line: None)
    cells = [cell for cells in laboratory.asked for cell in cells]
    assert {cell.defense.name for cell in cells} == {"scratch"} and {cell.seed for cell in cells} == set(SEEDS)
    assert {cell.mask for cell in cells} == {"dense"} and {cell.knowledge for cell in cells} == {"others"}
    assert {cell.protocol for cell in cells} == {"tiny_calibration-1"} and {in_t90(c).horizon for c in cells} == {8.0}


def test_what_is_frozen_is_not_measured_again(bare: Suite, tiny: Suite) -> None:
    laboratory = Laboratory()
    assert calibrated(tiny, laboratory, lambda line: None) == tiny and laboratory.asked == []
    frozen = Level(samples=12, t90=5.0, plateau=0.5)
    task = bare.tasks[0].model_copy(update={"levels": (frozen, Level(samples=48))})
    laboratory = Laboratory(n48=saturating(0.9, 10.0))
    found = calibrated(bare.model_copy(update={"tasks": (task,)}), laboratory, lambda line: None)
    assert found.tasks[0].levels[0] == frozen


def test_a_baseline_that_fails_on_a_seed_is_told(bare: Suite) -> None:
    def failing(cells: list[Cell]) -> list[Result]:
        return [Result(cell=cell, status="error" if cell.seed == SEEDS[0] else "ok") for cell in cells]

    with pytest.raises(UserError, match="the baseline cannot be measured: no attack from scratch went well on every"):
        calibrated(bare, failing, lambda line: None)


def test_a_guess_stands_where_nobody_has_measured(bare: Suite) -> None:
    assert [level.t90 for level in guessed(bare).tasks[0].levels] == [GUESS, GUESS]


def test_papers_protocols_measure_nothing_and_alone_need_no_measure(bare: Suite) -> None:
    paper = AttackEntry.model_validate({"name": "finetune", "label": "paper", "protocol": {"epochs": 5}})
    laboratory = Laboratory(n12=saturating(0.6, 10.0), n48=saturating(0.9, 40.0))
    mixed = calibrated(bare.model_copy(update={"attacks": (*bare.attacks, paper)}), laboratory, lambda line: None)
    assert all(level.t90 for level in mixed.tasks[0].levels)
    assert {cell.attack.label for asked in laboratory.asked for cell in asked} == {"finetune"}
    alone = bare.model_copy(update={"attacks": (paper,)})
    assert calibrated(alone, Laboratory(), lambda line: None) == alone
