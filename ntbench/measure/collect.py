"""From results to curves: every result to its place in the arrays of its task, or an error that says why not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntbench.errors import UserError
from ntbench.measure.areas import Array
from ntbench.measure.curves import ABSENT, COSTS, STATES, Attacker, Curves, Grid, Release
from ntbench.suite import Suite
from ntbench.types import FILE, NONE, Budget, Protection, Result

BEYOND = "longer"
"""The registered name of a check beyond the horizon, which enters nothing."""
Place = tuple[int, int, int, int]
"""Where a run stands: release, attack, sample count, seed."""
Placed = list[tuple[Place, Result]]
Shape = tuple[int, int, int, int, int]


def collect(results: Iterable[Result], suite: Suite) -> list[Curves]:
    """Return one `Curves` a task, tasks and methods in the suite's order, whatever the order of the results.

    Runs by a paper's protocol have another budget, and some are chosen on test data: they are no part of it.
    Raises UserError where results of several protocols, data sets or budgets are mixed, or two stand in one place.
    """
    found: dict[str, list[Result]] = {}
    names: dict[tuple[str, str, str], str] = {}
    protocol = ""
    for result in results:
        task = result.cell.task
        protocol = _one_protocol(protocol, result)
        key = (task.label, task.source, task.target)
        name = names.get(key) or names.setdefault(key, task.name)
        if result.cell.attack.name != BEYOND and isinstance(result.cell.budget, Budget):
            found.setdefault(name, []).append(result)
    order = _ordered([task.name for task in suite.tasks], found)
    return [_curves(name, found[name], suite) for name in order if name in found]


def _one_protocol(protocol: str, result: Result) -> str:
    if protocol and result.cell.protocol != protocol:
        raise UserError(
            f"results of two protocols are mixed: {min(protocol, result.cell.protocol)} and "
            f"{max(protocol, result.cell.protocol)}; report each from its own run folder"
        )
    return result.cell.protocol


def _ordered(first: Iterable[Any], found: Iterable[Any]) -> tuple[Any, ...]:
    known = dict.fromkeys(first)
    return (*known, *sorted(set(found) - set(known)))


def _curves(task: str, results: Sequence[Result], suite: Suite) -> Curves:
    _one_data(task, results)
    budgets = _budgets(task, results)
    releases, attacks = _releases(results, suite), _attacks(results, suite)
    counts, seeds = tuple(sorted(budgets)), tuple(sorted({r.cell.seed for r in results}))
    ends = tuple(budgets[count].ends for count in counts)
    shape = (len(releases), len(attacks), len(counts), len(seeds), max(map(len, ends)))
    axes = ([r.label for r in releases], [(a.label, a.mask) for a in attacks], counts, seeds)
    placed = {knowledge: _placed(task, results, knowledge, axes) for knowledge in ("others", "own")}
    images, originals = _images(results)
    return Curves(
        task=next((t for t in suite.tasks if t.name == task), results[0].cell.task),
        releases=releases,
        attacks=attacks,
        counts=counts,
        seeds=seeds,
        ends=ends,
        horizons=tuple(budgets[count].horizon for count in counts),
        images=images,
        originals=originals,
        source_images=max(result.source_images for result in results),
        grid=_grid(task, placed["others"], ends, shape),
        own=_grid(task, placed["own"], ends, shape) if placed["own"] else None,
        protections=_protections(placed["others"] + placed["own"]),
        refused={place[:2]: r.error for place, r in placed["others"] if r.status == "inapplicable"},
    )


def _one_data(task: str, results: Sequence[Result]) -> None:
    seen: dict[str, str] = {}
    last: dict[str, str] | None = None
    for result in results:
        data = result.provenance.data if result.provenance else {}
        if data == last:
            continue
        last = data
        for split, digest in data.items():
            if seen.setdefault(split, digest) != digest:
                raise UserError(
                    f"{task}: results on different data are mixed: {split} has the digests {min(seen[split], digest)} "
                    f"and {max(seen[split], digest)}; report each from its own run folder"
                )


def _budgets(task: str, results: Sequence[Result]) -> dict[int, Budget]:
    seen: dict[int, Budget] = {}
    for result in results:
        count, budget = result.cell.samples, result.cell.budget
        assert isinstance(budget, Budget)
        other = seen.setdefault(count, budget)
        if other is not budget and other != budget:
            pair = sorted((other, budget), key=lambda b: b.steps)
            raise UserError(
                f"{task}: results of two budgets are mixed at {count} samples: {pair[0]} and {pair[1]}; report each "
                "from its own run folder"
            )
    return seen


def _releases(results: Sequence[Result], suite: Suite) -> tuple[Release, ...]:
    specs = {r.cell.defense.label: r.cell.defense for r in results}
    order = _ordered([row for entry in suite.defenses for row in entry.rows], specs)
    shared = _one_file(results)
    held = ((label, specs[label]) for label in order if label in specs)
    return tuple(Release(label, spec.name, label in shared, spec.tuning) for label, spec in held)


def _one_file(results: Sequence[Result]) -> set[str]:
    """Return the rows whose seeds all attack one file: a release, or the undefended model where that is a file too."""
    files: dict[str, set[str]] = {}
    for cell in (result.cell for result in results):
        held = {FILE: cell.defense.params.get("sha256"), NONE: cell.pretrain.sha256}.get(cell.defense.name)
        if held:
            files.setdefault(cell.defense.label, set()).add(held)
    return {label for label, found in files.items() if len(found) == 1}


def _attacks(results: Sequence[Result], suite: Suite) -> tuple[Attacker, ...]:
    planned = [(label, params.get("mask", "dense")) for entry in suite.attacks for label, params in entry.variants()]
    found: dict[tuple[str, str], Result] = {}
    for result in results:
        found.setdefault((result.cell.attack.label, result.cell.mask), result)
    places = [place for place in _ordered(planned, found) if place in found]
    return tuple(_attacker(found[place]) for place in places)


def _attacker(result: Result) -> Attacker:
    spec = result.cell.attack
    return Attacker(spec.label, result.cell.mask, spec.name, result.track, spec.params)


def _placed(task: str, results: Sequence[Result], knowledge: str, axes: Sequence[Sequence[Any]]) -> Placed:
    release, attack, count, seed = ({value: k for k, value in enumerate(axis)} for axis in axes)
    taken: dict[Place, Result] = {}
    for result in results:
        cell = result.cell
        if cell.knowledge != knowledge:
            continue
        where = (attack[cell.attack.label, cell.mask], count[cell.samples], seed[cell.seed])
        place = (release[cell.defense.label], *where)
        other = taken.setdefault(place, result)
        if other is not result:
            raise UserError(
                f"{task}: two results stand for {cell.defense.label} under {cell.attack.label} ({cell.mask}) at "
                f"{cell.samples} samples, seed {cell.seed}: {min(other.cell.key, cell.key)} and "
                f"{max(other.cell.key, cell.key)}; report each recipe from its own run folder"
            )
    # Sorted by place, so that nothing depends on the order of arrival.
    return sorted(taken.items(), key=lambda item: item[0])


def _images(results: Sequence[Result]) -> tuple[int, int]:
    # A task keeps which images were right for all of its runs, or is judged by its scores alone.
    shapes = {(r.images, r.originals or r.images) for r in results if r.trajectory.step}
    whole = len(shapes) == 1 and all(bits for r in results for bits in r.trajectory.correct)
    return shapes.pop() if whole else (0, 0)


def _grid(task: str, placed: Placed, ends: Sequence[tuple[int, ...]], shape: Shape) -> Grid:
    cells = np.array([place for place, _ in placed], dtype=np.intp).reshape(-1, 4).T
    lengths = [len(r.trajectory.step) for _, r in placed]
    steps = _column(placed, "step")
    at = (*np.repeat(cells, lengths, axis=1), _positions(task, steps, np.repeat(cells[2], lengths), ends))

    def filled(name: str) -> Array:
        array = np.full(shape, np.nan)
        array[at] = _column(placed, name)
        return array

    bits = np.full(shape, "", dtype=object)
    bits[at] = np.array([text for _, r in placed for text in r.trajectory.correct], dtype=object)
    state = np.full(shape[:4], ABSENT, dtype=np.int8)
    state[tuple(cells)] = [STATES.index(result.status) for _, result in placed]
    paid = np.full(shape[:4], np.nan)
    paid[tuple(cells)] = [result.paid or (result.trajectory.step or (0,))[-1] for _, result in placed]
    cost = np.stack([filled("step" if name == "steps" else name) for name in COSTS])
    return Grid(filled("val"), filled("test"), filled("own"), cost, bits, state, paid)


def _column(placed: Placed, name: str) -> Array:
    return np.array(list(chain.from_iterable(getattr(r.trajectory, name) for _, r in placed)), dtype=np.float64)


def _positions(task: str, steps: Array, counts: Array, ends: Sequence[tuple[int, ...]]) -> NDArray[np.intp]:
    longest = max(map(len, ends))
    positions = np.zeros(len(steps), dtype=np.intp)
    for n, known in enumerate(ends):
        here = counts == n
        found = np.minimum(np.searchsorted(known, steps[here]), len(known) - 1)
        wrong = steps[here][np.array(known)[found] != steps[here]]
        if wrong.size:
            raise UserError(f"{task}: a run has a score at {int(wrong[0])} steps, which is none of its budgets {known}")
        positions[here] = found + longest - len(known)
    return positions


def _protections(placed: Placed) -> dict[tuple[int, int], Protection]:
    found: dict[tuple[int, int], Protection] = {}
    for (release, _, _, seed), result in placed:
        if result.protection is not None:
            found.setdefault((release, seed), result.protection)
    return found
