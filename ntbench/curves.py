"""Results as arrays: per task, every cell's accuracies and costs at its place in the grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ntbench.errors import UserError, unknown
from ntbench.metrics import Array, worst_case
from ntbench.suite import Suite
from ntbench.types import Mask, Result

Selection = Literal["val", "oracle"]
Place = tuple[int, ...]
Placed = tuple[Place, Result]

COSTS = ("steps", "samples", "flops", "seconds")
PROTECTION = (
    "source_before",
    "source_after",
    "zero_shot",
    "sparsity",
    "pretrain_seconds",
    "pretrain_flops",
    "protect_seconds",
    "protect_flops",
)


@dataclass(frozen=True, order=True)
class Row:
    """One line of the leaderboard: a defense's label, how the attacker treats its zeros, and its registered name."""

    defense: str
    mask: Mask
    name: str


@dataclass(frozen=True)
class Curves:
    """One task's grid; NaN stands where no cell went well.

    `val` and `test` are final accuracies [rows, attacks, ratios, seeds], `samples` [ratios].
    `cost`, `val_path` and `test_path` are [rows, attacks, seeds, points] at the largest ratio; `cost` is per unit.
    `protection` is [fields of PROTECTION, rows, seeds]; `cells` and `failed` count results per row.
    """

    task: str
    rows: tuple[Row, ...]
    attacks: tuple[str, ...]
    ratios: tuple[float, ...]
    seeds: tuple[int, ...]
    samples: Array
    val: Array
    test: Array
    cost: dict[str, Array]
    val_path: Array
    test_path: Array
    protection: dict[str, Array]
    cells: tuple[int, ...]
    failed: tuple[int, ...]

    def scratch(self) -> int | None:
        """Return the row of the control `scratch`, None where it has not run."""
        return next((i for i, row in enumerate(self.rows) if row.name == "scratch" and row.mask == "dense"), None)

    def find(self, defense: str, mask: Mask) -> int | None:
        """Return the row of a defense's label and mask, None where it has not run."""
        return next((i for i, row in enumerate(self.rows) if (row.defense, row.mask) == (defense, mask)), None)

    def eligible(self, row: int) -> NDArray[np.bool_]:
        """Return which attacks went well on every seed, [attacks, ratios]."""
        return np.asarray(np.isfinite(self.val[row] + self.test[row]).all(axis=2))

    def worst(self, row: int, selection: Selection) -> tuple[list[str], Array]:
        """Return per ratio the attack that the attacker picks ("-" where none ran), and its accuracies by seed."""
        choice, curve = worst_case((self.val if selection == "val" else self.test)[row], self.test[row])
        return ["-" if i < 0 else self.attacks[i] for i in choice], curve

    def under(self, row: int | None, attack: str) -> Array:
        """Return the accuracies [ratios, seeds] of one row under one attack, all NaN where it has not run."""
        if row is None or attack not in self.attacks:
            return np.full(self.test.shape[2:], np.nan)
        return np.asarray(self.test[row, self.attacks.index(attack)])


def collect(results: Iterable[Result], suite: Suite) -> list[Curves]:
    """Return the arrays of every task that has results, in the suite's order.

    Raises UserError where results of two protocols, of different data or of two versions of a cell are mixed.
    """
    tasks: dict[str, list[Result]] = {task.name: [] for task in suite.tasks}
    protocols = set()
    for result in results:
        tasks.setdefault(result.cell.task.name, []).append(result)
        protocols.add(result.cell.protocol)
    if len(protocols) > 1:
        raise UserError(f"results of the protocols {sorted(protocols)} are mixed; report each from its own run folder")
    return [_curves(task, found, suite) for task, found in tasks.items() if found]


def checked(selection: str) -> Selection:
    """Return a rule's name as it came; raises UserError for a rule that does not exist."""
    if selection not in get_args(Selection):
        raise unknown("selection rule", selection, get_args(Selection))
    return "val" if selection == "val" else "oracle"


def _curves(task: str, results: Sequence[Result], suite: Suite) -> Curves:
    _same_data(task, results)
    order = _ordered([entry.row for entry in suite.defenses], {r.cell.defense.label for r in results})
    labels = [label for entry in suite.attacks for label, _ in entry.variants()]
    rows = tuple(sorted({_row(r) for r in results}, key=lambda row: (order.index(row.defense), row)))
    attacks = _ordered(labels, {r.cell.attack.label for r in results})
    ratios = tuple(sorted({*suite.ratios, *(r.cell.ratio for r in results)}))
    seeds = tuple(sorted({r.cell.seed for r in results}))
    places = _placed(results, rows, attacks, ratios, seeds)
    good = [(place, result) for place, result in places if result.status == "ok" and result.trajectory.step]
    shape = (len(rows), len(attacks), len(ratios), len(seeds))
    paths = _paths([(p, r) for p, r in good if p[2] == shape[2] - 1], (shape[0], shape[1], shape[3]))
    return Curves(
        task=task,
        rows=rows,
        attacks=attacks,
        ratios=ratios,
        seeds=seeds,
        samples=_samples(good, task, ratios),
        val=_filled([(place, result.trajectory.val[-1]) for place, result in good], shape),
        test=_filled([(place, result.trajectory.test[-1]) for place, result in good], shape),
        cost={name: paths[k] for k, name in enumerate(COSTS)},
        val_path=paths[-2],
        test_path=paths[-1],
        protection=_protection(places, (shape[0], shape[3])),
        cells=tuple(sum(p[0] == i for p, _ in places) for i in range(shape[0])),
        failed=tuple(sum(p[0] == i and r.status != "ok" for p, r in places) for i in range(shape[0])),
    )


def _row(result: Result) -> Row:
    return Row(result.cell.defense.label, result.cell.mask, result.cell.defense.name)


def _ordered(first: Sequence[str], found: set[str]) -> tuple[str, ...]:
    return (*dict.fromkeys(first), *sorted(found - set(first)))


def _placed(results: Sequence[Result], *axes: Sequence[object]) -> list[Placed]:
    # Sorted by place, so that nothing below depends on the order of arrival.
    index = [{value: k for k, value in enumerate(axis)} for axis in axes]
    taken: dict[Place, Result] = {}
    for result in results:
        cell, row = result.cell, _row(result)
        i, a, n, s = (at[v] for at, v in zip(index, (row, cell.attack.label, cell.ratio, cell.seed), strict=True))
        other = taken.setdefault((i, a, n, s), result)
        if other is not result:
            raise UserError(
                f"{cell.task.name}: two results stand for {row.defense} ({row.mask}) under {cell.attack.label} at "
                f"ratio {cell.ratio}, seed {cell.seed}: {other.cell.key} and {cell.key}; report each recipe from its "
                "own run folder"
            )
    return sorted(taken.items(), key=lambda item: item[0])


def _filled(values: Sequence[tuple[Place, float]], shape: tuple[int, ...]) -> Array:
    array = np.full(shape, np.nan)
    for place, value in values:
        array[place] = value
    return array


def _samples(good: Sequence[Placed], task: str, ratios: Sequence[float]) -> Array:
    samples = _filled([((n,), r.samples) for (_, _, n, _), r in good if r.samples is not None], (len(ratios),))
    known = samples[np.isfinite(samples)]
    if (np.diff(known) <= 0).any():
        raise UserError(
            f"{task}: the ratios {list(ratios)} came to {known.tolist()} samples, which must rise strictly; "
            "remove a ratio from the suite"
        )
    return samples


def _protection(places: Sequence[Placed], shape: tuple[int, int]) -> dict[str, Array]:
    values = np.full((len(PROTECTION), *shape), np.nan)
    for (i, _, _, s), result in places:
        if result.protection is not None:
            found = np.array([getattr(result.protection, name) for name in PROTECTION], dtype=np.float64)
            values[:, i, s] = np.where(np.isnan(values[:, i, s]), found, values[:, i, s])
    return dict(zip(PROTECTION, values, strict=True))


def _paths(ends: Sequence[Placed], shape: tuple[int, int, int]) -> Array:
    # A path shorter than the longest repeats its last point, which is never the first to reach anything.
    points = max((len(result.trajectory.step) for _, result in ends), default=1)
    paths = np.full((len(COSTS) + 2, *shape, points), np.nan)
    for (i, a, _, s), result in ends:
        run = result.trajectory
        columns = np.array([run.step, run.samples, run.flops, run.seconds, run.val, run.test], dtype=np.float64)
        paths[:, i, a, s] = np.pad(columns, ((0, 0), (0, points - columns.shape[1])), mode="edge")
    return paths


def _same_data(task: str, results: Sequence[Result]) -> None:
    seen: dict[str, str] = {}
    for result in results:
        for split, found in (result.provenance.data if result.provenance else {}).items():
            if seen.setdefault(split, found) != found:
                raise UserError(
                    f"{task}: results on different data are mixed: {split} has the digests {min(seen[split], found)} "
                    f"and {max(seen[split], found)}; report each from its own run folder"
                )
