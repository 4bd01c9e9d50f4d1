"""Results that nobody computed: a suite of three attacks, and its cells with whatever scores a test asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ntbench.suite import Suite
from ntbench.types import (
    Arch,
    Budget,
    Cell,
    Epochs,
    Level,
    MethodSpec,
    Protection,
    Provenance,
    Result,
    Task,
    Training,
    Trajectory,
    pack_bits,
)

COUNTS = (10, 100, 1000)
SEEDS = (0, 1, 2, 3, 4)
ATTACKS = ("weak", "strong", "other")
T90 = 10.0
BUDGET = Budget(t90=T90)
ENDS = BUDGET.ends
"""1, 2, 5, 10, 20, 40 and 80 steps."""
LEVELS = tuple(Level(samples=n, t90=T90, plateau=p) for n, p in zip(COUNTS, (0.5, 0.55, 0.6), strict=True))
TASK = Task(source="a", target="b", levels=LEVELS)
SPEC: dict[str, Any] = {"version": 1, "code": "0" * 16}
Score = Callable[[str, str, int, int], float]
"""A score of a row ("ntp", or "ntp keep"), an attack, a sample count and a seed."""

ROWS = (("none", "dense"), ("scratch", "dense"), ("ntp", "dense"), ("ntp", "keep"), ("sophon", "dense"))
GAIN = {"none": 0.2, "scratch": 0.0, "ntp": 0.1, "ntp keep": -0.3, "sophon": -0.1}
LEVEL = {"weak": 0.3, "strong": 0.5, "other": 0.4}


def suite(**changes: Any) -> Suite:
    values: dict[str, Any] = {
        "name": "tiny",
        "version": 1,
        "summary": "three attacks",
        "seeds": SEEDS,
        "arch": Arch(name="cnn"),
        "pretrain": Training(),
        "paper": {"attack": "weak"},
        "default": "weak",
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
    samples: int,
    seed: int,
    *,
    mask: str = "dense",
    task: Task = TASK,
    protocol: str = "tiny-1",
    name: str = "",
    method: str = "",
    params: dict[str, Any] | None = None,
    budget: Budget | Epochs = BUDGET,
    **fields: Any,
) -> Cell:
    """Return a cell of `suite`; a defense's name is its label up to a hyphen, an attack's is `finetune`, or `auto`."""
    method = method or ("auto" if attack == "auto" else "finetune")
    given = {"name": attack, "mask": mask} | (params or {})
    return Cell(
        protocol=protocol,
        task=task,
        arch=Arch(name="cnn"),
        pretrain=Training(),
        budget=budget,
        defense=MethodSpec(kind="defense", name=name or defense.split("-")[0], params={}, label=defense, **SPEC),
        attack=MethodSpec(kind="attack", name=method, params=given, label=attack, **SPEC),
        samples=samples,
        seed=seed,
        **fields,
    )


def in_t90(cell: Cell) -> Budget:
    """Return the budget of a cell that follows no paper's protocol."""
    assert isinstance(cell.budget, Budget)
    return cell.budget


def trajectory(
    test: Sequence[float],
    val: Sequence[float] | None = None,
    ends: Sequence[int] = ENDS,
    right: Sequence[Any] | None = None,
    own: Sequence[float | None] | None = None,
) -> Trajectory:
    """Return a run with these scores at the ends, the last of them where there are fewer scores."""
    steps = tuple(ends[len(ends) - len(test) :])
    bits = [pack_bits(np.asarray(r, dtype=bool)) for r in right or ()]
    return Trajectory(
        step=steps,
        samples=tuple(32 * s for s in steps),
        flops=tuple(10**6 * s for s in steps),
        seconds=tuple(0.5 * s for s in steps),
        val=tuple(test if val is None else val),
        test=tuple(test),
        correct=tuple(bits or ("" for _ in steps)),
        own=tuple(None for _ in steps) if own is None else tuple(own),
    )


def outcome(cell: Cell, run: Trajectory, **fields: Any) -> Result:
    """Return a cell's result, of a defense that cost a point of source accuracy."""
    values: dict[str, Any] = {
        "status": "ok",
        "paid": run.step[-1] if run.step else 0,
        "protection": Protection(
            needs="source labels",
            source_before=0.99,
            source_after=0.98 + 0.001 * (cell.seed - 2),
            zero_shot=0.1,
            sparsity=0.5,
            pretrain_seconds=4.0,
            pretrain_flops=200,
            protect_seconds=6.0,
            protect_flops=700,
            protect_steps=30,
        ),
        "trajectory": run,
        "provenance": Provenance(data={"b/train": "d1"}, versions={"ntbench": "0.1"}, device="cpu"),
        "seconds": 1.25,
        "peak_mb": 300.0,
    }
    return Result(cell=cell, **values | fields)


def refused(cell: Cell, reason: str = "it cannot") -> Result:
    """Return a cell as inapplicable."""
    return outcome(cell, Trajectory(), status="inapplicable", error=reason, protection=None)


def result(
    defense: str,
    attack: str,
    samples: int,
    seed: int,
    final: float,
    *,
    val: float | None = None,
    mask: str = "dense",
    task: Task = TASK,
    path: Sequence[float] | None = None,
    **fields: Any,
) -> Result:
    """Return a cell's result; it lies at .1 until half of the horizon, where it is on its plateau, unless told."""
    test = [min(0.1, final)] * 5 + [final] * 2 if path is None else list(path)
    shift = 0.0 if val is None else val - final
    cell = recipe(defense, attack, samples, seed, mask=mask, task=task)
    return outcome(cell, trajectory(test, [v + shift for v in test]), **fields)


def grid(
    score: Score,
    rows: Sequence[tuple[str, str]] = ROWS,
    attacks: Sequence[str] = ATTACKS,
    seeds: Sequence[int] = SEEDS,
    counts: Sequence[int] = COUNTS,
    refusing: bool = True,
    **fields: Any,
) -> Iterator[Result]:
    """Yield a result for every place of a grid, and a refusal where an attack would keep a mask that is none."""
    places = [(attack, samples, seed) for attack in attacks for samples in counts for seed in seeds]
    for defense, mask in rows:
        row = defense if mask == "dense" else f"{defense} {mask}"
        for place in places:
            yield result(defense, *place, score(row, *place), mask=mask, **fields)
    for defense in dict.fromkeys(defense for defense, _ in rows if refusing and (defense, "keep") not in rows):
        for place in places:
            yield refused(recipe(defense, *place, mask="keep", task=fields.get("task", TASK)))


def additive(row: str, attack: str, samples: int, seed: int) -> float:
    """A gain over scratch that is the same at every count: SLC-AUC is gain * ln 100, uplift the gain, if positive."""
    noise = 0.0 if row.startswith("scratch") else 0.01 * (seed - 2)
    return LEVEL[attack] + GAIN[row.split("-")[0]] + 0.05 * float(np.log10(samples / 10)) + noise


def with_bits(score: Score, images: int = 200, seed: int = 0) -> Iterator[Result]:
    """Yield the rows of a grid whose scores are the means of which images were right, noise of images and all."""
    ease = np.random.default_rng(seed).normal(0, 0.1, images)
    for given in grid(score):
        if given.status == "inapplicable":
            yield given
            continue
        cell = given.cell
        row = cell.defense.label if cell.mask == "dense" else f"{cell.defense.label} keep"
        chance = np.clip(score(row, cell.attack.label, cell.samples, cell.seed) + ease, 0, 1)
        draw = np.random.default_rng([seed, int(cell.key, 16)])
        right = [draw.random(images) < chance * share for share in (0.2, 0.3, 0.5, 0.7, 0.9, 1, 1)]
        test = [float(r.mean()) for r in right]
        yield outcome(cell, trajectory(test, right=right), images=images, originals=images)


def row(table: pd.DataFrame, defense: str, mask: str = "dense", track: str = "target") -> Any:
    """Return the only line of a defense and mask in a track."""
    found = table[(table.defense == defense) & (table["mask"] == mask) & (table.track == track)]
    assert len(found) == 1
    return found.iloc[0]
