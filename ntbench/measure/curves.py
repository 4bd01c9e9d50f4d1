"""Results as arrays: per task, every cell's accuracies and costs at its place in the grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from ntbench.errors import UserError, unknown
from ntbench.measure.metrics import Array, worst_case
from ntbench.suite import Suite
from ntbench.types import Mask, Result

Selection = Literal["last", "val", "oracle"]
"""How an attacker chooses: attacks alone, by validation data; steps too, by the same; or both by test data."""
PAPER: Selection = "last"
AUTO = "auto"
"""The registered name of the attack that searches for itself."""
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
    """One task's grid; NaN stands where no cell went well, and cells that are inapplicable do not exist.

    By rule, `scores` are what the attacker chooses by and `outcomes` its test accuracies, [rows, attacks, ratios,
    seeds]; `steps` of that shape are what runs took, failed ones too. `samples` is [ratios]; `auto` marks attacks.
    `cost`, `val_path` and `test_path` are [rows, attacks, seeds, points] at the largest ratio; `cost` is per unit.
    `applicable` is [rows, attacks], `protection` [fields of PROTECTION, rows, seeds]. Per row, `needs` is the data that
    the defense asks for, `choices` what `auto` chose; `cells` and `failed` count results.
    """

    task: str
    rows: tuple[Row, ...]
    attacks: tuple[str, ...]
    auto: NDArray[np.bool_]
    ratios: tuple[float, ...]
    seeds: tuple[int, ...]
    samples: Array
    scores: dict[Selection, Array]
    outcomes: dict[Selection, Array]
    steps: Array
    cost: dict[str, Array]
    val_path: Array
    test_path: Array
    applicable: NDArray[np.bool_]
    protection: dict[str, Array]
    needs: tuple[str, ...]
    choices: tuple[tuple[str, ...], ...]
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
        return np.asarray(np.isfinite(self.scores["last"][row] + self.outcomes["last"][row]).all(axis=2))

    def worst(self, row: int, rule: Selection, among: NDArray[np.bool_] | None = None) -> tuple[list[str], Array]:
        """Return per ratio the attack that the attacker picks ("-" where none ran), and its accuracies by seed.

        It picks among the attacks that are marked, by default among all.
        """
        scores = self.scores[rule][row]
        scores = scores if among is None else np.where(among[:, None, None], scores, np.nan)
        choice, curve = worst_case(scores, self.outcomes[rule][row])
        return ["-" if i < 0 else self.attacks[i] for i in choice], curve

    def under(self, row: int | None, attack: str) -> Array:
        """Return the accuracies [ratios, seeds] of one row where one attack ends, all NaN where it has not run."""
        if row is None or attack not in self.attacks:
            return self.nothing()
        return np.asarray(self.outcomes[PAPER][row, self.attacks.index(attack)])

    def nothing(self) -> Array:
        """Return accuracies [ratios, seeds] that are all NaN."""
        return np.full((len(self.ratios), len(self.seeds)), np.nan)

    def spent(self, row: int, chosen: Sequence[str]) -> float:
        """Return the mean steps over seeds of the attack that is chosen at each ratio, summed over ratios."""
        places = [(self.attacks.index(name), n) for n, name in enumerate(chosen) if name != "-"]
        return float(sum(self.steps[row, a, n].mean() for a, n in places)) if places else np.nan

    def searched(self, row: int, among: NDArray[np.bool_]) -> float:
        """Return the steps of all runs of the attacks that are marked, summed over ratios, mean over seeds."""
        steps = self.steps[row][among]
        ran = np.isfinite(steps).any(axis=(0, 1))
        return float(np.nansum(steps, axis=(0, 1))[ran].mean()) if ran.any() else np.nan


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
    return [
        _curves(task, found, suite) for task, found in tasks.items() if any(r.status != "inapplicable" for r in found)
    ]


def checked(selection: str) -> Selection:
    """Return a rule's name as it came; raises UserError for a rule that does not exist."""
    if selection not in get_args(Selection):
        raise unknown("selection rule", selection, get_args(Selection))
    return cast(Selection, selection)


def so_far(rule: Selection, val: Array, test: Array) -> tuple[Array, Array]:
    """Return what an attacker holds after each point of its runs, [..., points]: what it chooses by, and test accuracy.

    The rules `val` and `oracle` keep the best point until then, the first of equals, on validation and on test data.
    """
    chooser = test if rule == "oracle" else val
    if rule == "last":
        return chooser, test
    before = np.concatenate([np.full((*chooser.shape[:-1], 1), -np.inf), chooser[..., :-1]], axis=-1)
    better = chooser > np.fmax.accumulate(before, axis=-1)
    best = np.maximum.accumulate(np.where(better, np.arange(chooser.shape[-1]), 0), axis=-1)
    return np.take_along_axis(chooser, best, axis=-1), np.take_along_axis(test, best, axis=-1)


def _curves(task: str, found: Sequence[Result], suite: Suite) -> Curves:
    _same_data(task, found)
    results = [result for result in found if result.status != "inapplicable"]
    order = _ordered([entry.row for entry in suite.defenses], {r.cell.defense.label for r in results})
    labels = [label for entry in suite.attacks for label, _ in entry.variants()]
    rows = tuple(sorted({_row(r) for r in results}, key=lambda row: (order.index(row.defense), row)))
    attacks = _ordered(labels, {r.cell.attack.label for r in results})
    ratios = tuple(sorted({*suite.ratios, *(r.cell.ratio for r in results)}))
    seeds = tuple(sorted({r.cell.seed for r in results}))
    places = _placed(results, rows, attacks, ratios, seeds)
    scored = [(place, result) for place, result in places if result.trajectory.step]
    good = [(place, result) for place, result in scored if result.status == "ok"]
    shape = (len(rows), len(attacks), len(ratios), len(seeds))
    paths = _paths(good, shape)
    held = {rule: [array[..., -1] for array in so_far(rule, *paths[-2:])] for rule in get_args(Selection)}
    searching = {result.cell.attack.label for result in results if result.cell.attack.name == AUTO}
    of = [[result for place, result in places if place[0] == i] for i in range(shape[0])]
    return Curves(
        task=task,
        rows=rows,
        attacks=attacks,
        auto=np.array([label in searching for label in attacks]),
        ratios=ratios,
        seeds=seeds,
        samples=_samples(good, task, ratios),
        scores={rule: score for rule, (score, _) in held.items()},
        outcomes={rule: outcome for rule, (_, outcome) in held.items()},
        steps=_filled([(place, result.trajectory.step[-1]) for place, result in scored], shape),
        cost={name: paths[k][:, :, -1] for k, name in enumerate(COSTS)},
        val_path=paths[-2][:, :, -1],
        test_path=paths[-1][:, :, -1],
        applicable=_applicable(rows, attacks, suite, found),
        protection=_protection(places, (shape[0], shape[3])),
        needs=tuple(next((r.protection.needs for r in part if r.protection and r.protection.needs), "") for part in of),
        choices=tuple(tuple(r.choice for r in part if r.choice and r.cell.attack.name == AUTO) for part in of),
        cells=tuple(len(part) for part in of),
        failed=tuple(sum(r.status != "ok" for r in part) for part in of),
    )


def _row(result: Result) -> Row:
    return Row(result.cell.defense.label, result.cell.mask, result.cell.defense.name)


def _ordered(first: Sequence[str], found: set[str]) -> tuple[str, ...]:
    return (*dict.fromkeys(first), *sorted(found - set(first)))


def _applicable(
    rows: Sequence[Row], attacks: Sequence[str], suite: Suite, results: Sequence[Result]
) -> NDArray[np.bool_]:
    # What the suite plans and nothing refused counts, so that a run that is cut short looks incomplete.
    facing = {
        (label, params.get("mask", "dense")): {*entry.against}
        for entry in suite.attacks
        for label, params in entry.variants()
    }
    ran, refused = (
        {(_row(r), r.cell.attack.label) for r in results if (r.status == "inapplicable") == refusal}
        for refusal in (False, True)
    )

    def applies(row: Row, attack: str) -> bool:
        against = facing.get((attack, row.mask))
        planned = against is not None and (not against or bool({row.defense, row.name} & against))
        return (row, attack) in ran or (planned and (row, attack) not in refused)

    return np.array([[applies(row, attack) for attack in attacks] for row in rows], dtype=bool)


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


def _paths(good: Sequence[Placed], shape: tuple[int, ...]) -> Array:
    # A path shorter than the longest repeats its last point, which is never the first to reach anything.
    points = max((len(result.trajectory.step) for _, result in good), default=1)
    paths = np.full((len(COSTS) + 2, *shape, points), np.nan)
    for (i, a, n, s), result in good:
        run = result.trajectory
        columns = np.array([run.step, run.samples, run.flops, run.seconds, run.val, run.test], dtype=np.float64)
        paths[:, i, a, n, s] = np.pad(columns, ((0, 0), (0, points - columns.shape[1])), mode="edge")
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
