"""Results that nobody computed: a suite of three attacks, and its cells with whatever accuracies a test asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from ntbench.suite import Suite
from ntbench.types import Arch, Budget, Cell, MethodSpec, Protection, Provenance, Result, Task, Training, Trajectory

SAMPLES = {0.01: 10, 0.1: 100, 1.0: 1000}
RATIOS = tuple(SAMPLES)
SEEDS = (0, 1, 2)
ATTACKS = ("weak", "strong", "other")
STEPS = (0, 5, 10, 20, 40, 80)
BUDGET = Budget(steps=80, samples=2560, scored=STEPS[1:])
TASK = Task(source="a", target="b")
SPAN = np.log(100)
SPEC: dict[str, Any] = {"version": 1, "code": "0" * 16}
Accuracy = Callable[[str, str, float, int], float]

ROWS = (("none", "dense"), ("scratch", "dense"), ("ntp", "dense"), ("ntp", "keep"), ("sophon", "dense"))
CURVE_COLUMNS = ("defense", "mask", "samples", "seed", "worst", "paper", "scratch")
PATH_COLUMNS = ("defense", "mask", "attack", "ratio", "seed", "step", "split", "value")
GAIN = {"nonedense": 0.2, "scratchdense": 0.0, "ntpdense": 0.1, "ntpkeep": -0.3, "sophondense": -0.1}


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
        "tasks": [TASK],
        "defenses": [
            {"name": "none"},
            {"name": "scratch"},
            {"name": "ntp", "paper": {"attack": "weak", "mask": "keep"}},
            {"name": "sophon"},
        ],
        "attacks": [{"name": "finetune", "label": name, "grid": {"mask": ["dense", "keep"]}} for name in ATTACKS],
    }
    return Suite.model_validate(values | changes)


def recipe(
    defense: str,
    attack: str,
    ratio: float,
    seed: int,
    *,
    mask: str = "dense",
    task: Task = TASK,
    protocol: str = "tiny-1",
    name: str | None = None,
) -> Cell:
    """Return a cell of `suite`; the defense's name is its label up to a hyphen, unless it is given.

    The attack `auto` is registered under that name, all others are `finetune`.
    """
    named = name or defense.split("-")[0]
    params = {"name": attack, "mask": mask}
    return Cell(
        protocol=protocol,
        task=task,
        arch=Arch(name="cnn"),
        pretrain=Training(),
        budget=BUDGET,
        defense=MethodSpec(kind="defense", name=named, params={}, label=defense, **SPEC),
        attack=MethodSpec(
            kind="attack", name="auto" if attack == "auto" else "finetune", params=params, label=attack, **SPEC
        ),
        ratio=ratio,
        seed=seed,
    )


def trajectory(path: tuple[float, ...], shift: float = 0.0, steps: tuple[int, ...] = STEPS) -> Trajectory:
    """Return a run with these test accuracies at the steps, and `shift` more on validation data."""
    return Trajectory(
        step=steps,
        samples=tuple(32 * s for s in steps),
        flops=tuple(10**6 * s for s in steps),
        seconds=tuple(0.5 * s for s in steps),
        val=tuple(v + shift for v in path),
        test=path,
    )


def refused(result: Result, reason: str = "it cannot") -> Result:
    """Return a cell as inapplicable."""
    return Result(cell=result.cell, status="inapplicable", error=reason, provenance=result.provenance)


def outcome(cell: Cell, path: tuple[float, ...], shift: float = 0.0, **fields: Any) -> Result:
    values: dict[str, Any] = {
        "status": "ok",
        "samples": SAMPLES.get(cell.ratio),
        "protection": Protection(
            needs="source labels",
            source_before=0.99,
            source_after=0.98 + 0.005 * (cell.seed - 1),
            zero_shot=0.1,
            sparsity=0.5,
            pretrain_seconds=4.0,
            pretrain_flops=200,
            protect_seconds=6.0,
            protect_flops=700,
        ),
        "trajectory": trajectory(path, shift),
        "provenance": Provenance(data={"b/train": "d1"}, versions={"ntbench": "0.1"}, device="cpu"),
        "seconds": 1.25,
        "peak_mb": 300.0,
    }
    return Result(cell=cell, **values | fields)


def result(
    defense: str,
    attack: str,
    ratio: float,
    seed: int,
    final: float,
    *,
    val: float | None = None,
    mask: str = "dense",
    task: Task = TASK,
    path: tuple[float, ...] | None = None,
    **fields: Any,
) -> Result:
    """Return a cell's result; its curve is flat until the last step, and the same on both splits, unless told."""
    cell = recipe(defense, attack, ratio, seed, mask=mask, task=task)
    return outcome(cell, path or (*(min(0.1, final),) * 5, final), (final if val is None else val) - final, **fields)


def grid(accuracy: Accuracy, rows: tuple[tuple[str, str], ...] = ROWS, **fields: Any) -> Iterator[Result]:
    for defense, mask in rows:
        for attack in ATTACKS:
            for ratio in RATIOS:
                for seed in SEEDS:
                    final = accuracy(defense + mask, attack, ratio, seed)
                    yield result(defense, attack, ratio, seed, final, mask=mask, **fields)


def additive(row: str, attack: str, ratio: float, seed: int) -> float:
    """A gap to scratch that is the same at every ratio: SLC-AUC is gap * ln 100."""
    level = {"weak": 0.3, "strong": 0.5, "other": 0.4}[attack]
    return level + GAIN[row] + 0.05 * float(np.log10(ratio)) + 0.01 * (seed - 1) * (row != "scratchdense")


def scratch_path(attack: str) -> tuple[float, ...]:
    """Scratch reaches 0.72 = 0.9 * 0.8 at step 10."""
    return (0.1, 0.5, 0.72, 0.8, 0.8, 0.8) if attack == "strong" else (0.1,) * 6


def row(table: pd.DataFrame, defense: str, mask: str = "dense") -> Any:
    """Return the only line of a defense and mask."""
    found = table[(table.defense == defense) & (table["mask"] == mask)]
    assert len(found) == 1
    return found.iloc[0]
