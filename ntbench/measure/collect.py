"""From results to curves: every result to its place in the arrays of its task, or an error that says why not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntbench.errors import UserError
from ntbench.measure.areas import Array
from ntbench.measure.curves import ABSENT, COSTS, NO_BITS, STATES, Attacker, Curves, Grid, Release
from ntbench.suite import Planned, Suite
from ntbench.types import FILE, NONE, Budget, Columns, Knowledge, MethodSpec, Protection, Result, columns_of
from ntbench.types.columns import firsts

BEYOND = "longer"
"""The registered name of a check beyond the horizon, which enters nothing."""
PART = 2**15
"""How many rows or numbers are looked up at a time."""
Rows = NDArray[np.intp]
Axes = tuple[Sequence[str], Sequence[tuple[str, str]], Sequence[int], Sequence[int]]
"""Releases, attacks (label and mask), sample counts and seeds: where runs stand."""


def collect(results: Iterable[Result], suite: Suite) -> list[Curves]:
    """Return one `Curves` a task, tasks and methods in the suite's order, whatever the order of the results.

    Runs by a paper's protocol have another budget, and some are chosen on test data: they are no part of it.
    Raises UserError where results of several protocols, data sets or budgets are mixed, or two stand in one place.
    """
    columns = columns_of(results)
    _one_protocol(columns)
    plain = columns.where("attack", lambda spec: spec.name != BEYOND)
    plain = plain.where("budget", lambda budget: isinstance(budget, Budget))
    found = _by_task(columns, plain)
    order = _ordered([task.name for task in suite.tasks], found)
    planned = suite.planned
    return [_curves(name, found[name], suite, planned) for name in order if name in found]


def _one_protocol(columns: Columns) -> None:
    names = columns.parts["protocol"].present
    if len(names) > 1:
        raise UserError(
            f"results of two protocols are mixed: {min(names[:2])} and {max(names[:2])}; report each from its own run "
            "folder"
        )


def _by_task(columns: Columns, plain: Columns) -> dict[str, Columns]:
    # Levels differ between suites, and a task is the same for all that.
    names: dict[tuple[str, str, str], str] = {}
    tasks = columns.parts["task"]
    keys = {code: (task.label, task.source, task.target) for code, task in enumerate(tasks.values)}
    for code in tasks.firsts():
        names.setdefault(keys[code], tasks.values[code].name)
    told = [names.get(keys[code]) for code in range(len(tasks.values))]
    held = plain.parts["task"]
    there = [told[code] for code in held.firsts()]
    return {name: plain.take(np.flatnonzero(np.array([t == name for t in told])[held.codes])) for name in there if name}


def _ordered(first: Iterable[Any], found: Iterable[Any]) -> tuple[Any, ...]:
    known = dict.fromkeys(first)
    return (*known, *sorted(set(found) - set(known)))


def _curves(task: str, columns: Columns, suite: Suite, planned: Sequence[Planned]) -> Curves:
    _one_data(task, columns)
    budgets = _budgets(task, columns)
    releases, attacks = _releases(columns, suite), _attacks(columns, planned)
    counts, seeds = tuple(sorted(budgets)), tuple(np.unique(columns.numbers["seed"]).tolist())
    ends = tuple(budgets[count].ends for count in counts)
    shape = (len(releases), len(attacks), len(counts), len(seeds), max(map(len, ends)))
    axes = ([r.label for r in releases], [(a.label, a.mask) for a in attacks], counts, seeds)
    cells = _cells(columns, axes)
    placed: dict[Knowledge, Rows] = {
        knowledge: _placed(task, columns, cells, shape, knowledge) for knowledge in ("others", "own")
    }
    others, own = placed["others"], placed["own"]
    images, originals = _images(columns)
    return Curves(
        task=next((t for t in suite.tasks if t.name == task), columns.value("task", 0)),
        releases=releases,
        planned=planned,
        attacks=attacks,
        counts=counts,
        seeds=seeds,
        ends=ends,
        horizons=tuple(budgets[count].horizon for count in counts),
        images=images,
        originals=originals,
        source_images=max(columns.parts["source_images"].present),
        grid=_grid(task, columns, others, cells, ends, shape),
        own=_grid(task, columns, own, cells, ends, shape) if len(own) else None,
        packed=columns.correct,
        protections=_protections(columns, np.concatenate([others, own]), cells),
        refused=_refused(columns, others, cells),
    )


def _one_data(task: str, columns: Columns) -> None:
    seen: dict[str, str] = {}
    for origin in columns.parts["provenance"].present:
        for split, digest in (origin.data if origin else {}).items():
            if seen.setdefault(split, digest) != digest:
                raise UserError(
                    f"{task}: results on different data are mixed: {split} has the digests {min(seen[split], digest)} "
                    f"and {max(seen[split], digest)}; report each from its own run folder"
                )


def _budgets(task: str, columns: Columns) -> dict[int, Budget]:
    seen: dict[int, Budget] = {}
    factor, samples = columns.parts["budget"], columns.numbers["samples"]
    for row in firsts(factor.codes, samples):
        count, budget = int(samples[row]), columns.value("budget", row)
        other = seen.setdefault(count, budget)
        if other != budget:
            pair = sorted((other, budget), key=lambda b: b.steps)
            raise UserError(
                f"{task}: results of two budgets are mixed at {count} samples: {pair[0]} and {pair[1]}; report each "
                "from its own run folder"
            )
    return seen


def _releases(columns: Columns, suite: Suite) -> tuple[Release, ...]:
    # Where recipes of one label differ, as those of several files do, the last row's counts.
    last = columns.parts["defense"].take(np.arange(len(columns))[::-1]).present
    specs = {spec.label: spec for spec in reversed(last)}
    order = _ordered([row for entry in suite.defenses for row in entry.rows], specs)
    shared = _one_file(columns)
    held = ((label, specs[label]) for label in order if label in specs)
    return tuple(Release(label, spec.name, label in shared, spec.tuning) for label, spec in held)


def _one_file(columns: Columns) -> set[str]:
    """Return the rows whose seeds all attack one file: a release, or the undefended model where that is a file too."""
    files: dict[str, set[str]] = {}
    for defense, pretrain in columns.pairs("defense", "pretrain"):
        held = {FILE: defense.params.get("sha256"), NONE: pretrain.sha256}.get(defense.name)
        if held:
            files.setdefault(defense.label, set()).add(held)
    return {label for label, found in files.items() if len(found) == 1}


def _attacks(columns: Columns, planned: Sequence[Planned]) -> tuple[Attacker, ...]:
    factor = columns.parts["attack"]
    found: dict[tuple[str, str], int] = {}
    for code, row in factor.firsts().items():
        found.setdefault(_faced(factor.values[code]), row)
    places = [place for place in _ordered(((label, mask) for _, label, mask in planned), found) if place in found]
    return tuple(_attacker(columns, found[place]) for place in places)


def _attacker(columns: Columns, row: int) -> Attacker:
    spec: MethodSpec = columns.value("attack", row)
    return Attacker(spec.label, spec.mask, spec.name, columns.value("track", row), spec.params)


def _faced(spec: MethodSpec) -> tuple[str, str]:
    return spec.label, spec.mask


def _cells(columns: Columns, axes: Axes) -> NDArray[np.intp]:
    """Return where each row stands: release, attack, sample count, seed [4, row]."""
    releases, attacks, counts, seeds = axes
    return np.stack(
        [
            columns.parts["defense"].coded(lambda spec: spec.label, releases),
            columns.parts["attack"].coded(_faced, attacks),
            np.searchsorted(counts, columns.numbers["samples"]),
            np.searchsorted(seeds, columns.numbers["seed"]),
        ]
    )


def _placed(task: str, columns: Columns, cells: Rows, shape: Sequence[int], knowledge: Knowledge) -> Rows:
    """Return the rows of some knowledge in the order of their places, so that nothing depends on that of arrival."""
    rows = np.flatnonzero(columns.parts["knowledge"].coded(str, [knowledge]) == 0)
    places = np.ravel_multi_index(tuple(cells[:, rows]), tuple(shape[:4]))
    order = np.argsort(places, kind="stable")
    twice = np.flatnonzero(np.diff(places[order]) == 0)
    if twice.size:
        # The first to arrive at a place that is taken, and who has been there before.
        second = int(order[twice + 1].min())
        first = int(np.flatnonzero(places == places[second])[0])
        _refuse(task, columns, int(rows[first]), int(rows[second]))
    return rows[order]


def _refuse(task: str, columns: Columns, first: int, second: int) -> None:
    cell, keys = columns[second].cell, sorted((columns[first].cell.key, columns[second].cell.key))
    raise UserError(
        f"{task}: two results stand for {cell.defense.label} under {cell.attack.label} ({cell.mask}) at "
        f"{cell.samples} samples, seed {cell.seed}: {keys[0]} and {keys[1]}; report each recipe from its own run folder"
    )


def _images(columns: Columns) -> tuple[int, int]:
    # A task keeps which images were right for all of its runs, or is judged by its scores alone.
    images, originals = columns.parts["images"], columns.parts["originals"]
    scored = np.flatnonzero(columns.lengths)
    shapes = {
        (images.values[images.codes[row]], originals.values[originals.codes[row]] or images.values[images.codes[row]])
        for row in scored[firsts(images.codes[scored], originals.codes[scored])]
    }
    whole = len(shapes) == 1 and bool(np.diff(columns.correct.starts).all())
    return shapes.pop() if whole else (0, 0)


def _grid(
    task: str, columns: Columns, rows: Rows, cells: Rows, ends: Sequence[tuple[int, ...]], shape: tuple[int, ...]
) -> Grid:
    bits = np.full(shape, NO_BITS, dtype=np.int64)
    for some in np.array_split(rows, len(rows) // PART + 1):
        points, lengths = columns.points(some), columns.lengths[some]
        end = _positions(task, columns.runs["step"][points], np.repeat(cells[2, some], lengths), ends)
        place = np.ravel_multi_index(tuple(cells[:, some]), shape[:4]) * shape[4]
        bits.reshape(-1)[np.repeat(place, lengths) + end] = points
    at = tuple(cells[:, rows])
    state = np.full(shape[:4], ABSENT, dtype=np.int8)
    state[at] = columns.parts["status"].coded(str, STATES)[rows]
    paid = np.full(shape[:4], np.nan)
    paid[at] = _paid(columns, rows)
    cost = np.empty((len(COSTS), *shape))
    for array, name in zip(cost, COSTS, strict=True):
        _look_up(columns.runs["step" if name == "steps" else name], bits, array)
    val, test = (_look_up(columns.runs[name], bits, np.empty(shape)) for name in ("val", "test"))
    # Who goes by what others saw has put no sample aside.
    aside = len(rows) > 0 and columns.value("knowledge", int(rows[0])) == "own"
    own = _look_up(columns.runs["own"], bits, np.empty(shape)) if aside else np.broadcast_to(np.nan, shape)
    return Grid(val, test, own, cost, bits, state, paid)


def _look_up(column: NDArray[Any], places: NDArray[np.int64], array: Array) -> Array:
    """Fill an array with what stands in a column at some places, NaN for none."""
    if not column.size:
        array.fill(np.nan)
        return array
    # A part at a time, since new memory for all of it costs more than the rest.
    for start in range(0, places.size, PART):
        at = places.reshape(-1)[start : start + PART]
        array.reshape(-1)[start : start + PART] = np.where(at == NO_BITS, np.nan, column.take(at, mode="clip"))
    return array


def _paid(columns: Columns, rows: Rows) -> NDArray[np.int64]:
    told, lengths = columns.numbers["paid"][rows].copy(), columns.lengths[rows]
    # What a run does not tell is the last of its steps.
    silent = np.flatnonzero((told == 0) & (lengths > 0))
    told[silent] = columns.runs["step"][columns.starts[1:][rows[silent]] - 1]
    return told


def _positions(task: str, steps: NDArray[Any], counts: Rows, ends: Sequence[tuple[int, ...]]) -> Rows:
    longest, beyond = max(map(len, ends)), max(int(steps.max(initial=0)), *map(max, ends)) + 1
    # Budgets of all counts behind one another, so that one search finds any of them.
    known = np.concatenate([n * beyond + np.array(each) for n, each in enumerate(ends)])
    place = np.concatenate([np.arange(longest - len(each), longest) for each in ends])
    sought = counts * beyond + steps
    found = np.minimum(np.searchsorted(known, sought), len(known) - 1)
    wrong = np.flatnonzero(known[found] != sought)
    if wrong.size:
        step, budgets = int(steps[wrong[0]]), ends[counts[wrong[0]]]
        raise UserError(f"{task}: a run has a score at {step} steps, which is none of its budgets {budgets}")
    return np.asarray(place[found])


def _protections(columns: Columns, rows: Rows, cells: Rows) -> dict[tuple[int, int], Protection]:
    known = rows[columns.parts["protection"].coded(lambda held: held is not None, [True])[rows] == 0]
    first = known[firsts(cells[0, known], cells[3, known])]
    return {(int(cells[0, row]), int(cells[3, row])): columns.value("protection", row) for row in first}


def _refused(columns: Columns, rows: Rows, cells: Rows) -> dict[tuple[int, int], str]:
    off = rows[columns.parts["status"].coded(str, ["inapplicable"])[rows] == 0]
    # Of several reasons for one attack on one release the last stands.
    last = off[::-1][firsts(*cells[:2, off[::-1]])][::-1]
    return {(int(cells[0, row]), int(cells[1, row])): columns.value("error", row) for row in last}
