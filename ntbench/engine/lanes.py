"""Cells side by side: those alike but for seed, defense, rate and decay train as lanes, and give a result each.

Alone go foreign code, attacks with a loop, a loss or features of their own, searches, bfloat16 and early stopping.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ntbench.engine.bench import Bench, Row
from ntbench.engine.foreign import is_foreign
from ntbench.engine.limits import guarded
from ntbench.engine.runner import Runner, result_of
from ntbench.engine.subject import Grant, Snapshot, begun, global_seeds
from ntbench.engine.view import View
from ntbench.learn.fit import Fit
from ntbench.learn.lanes import Lanes, lane_key
from ntbench.learn.meter import Meter
from ntbench.registry import registry
from ntbench.types import Cell, Protection, Result, Status

OWN = ("lr", "weight_decay")
"""The hyper-parameters of an attack in which lanes may differ."""


@dataclass(eq=False)
class _Lane:
    """A cell that is about to train beside others."""

    bench: Bench
    protection: Protection
    view: View
    grant: Grant
    fit: Fit
    meter: Meter
    key: Hashable | None
    rows: list[Row] = field(default_factory=list)
    failed: str = ""


def grouped(cells: Iterable[Cell], lanes: int) -> list[list[Cell]]:
    """Return cells in groups of at most so many that may train side by side, in the order of their first ones."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(_kind(cell) if lanes > 1 else cell.key, []).append(cell)
    return [group[i : i + lanes] for group in groups.values() for i in range(0, len(group), lanes)]


def _kind(cell: Cell) -> str:
    """Return what cells that may train side by side have in common; of one that trains alone, its key."""
    attack = registry.create(cell.attack)
    one_fit = not is_foreign(attack) and attack.is_one_fit and not attack.on_features
    # Rounding to bfloat16 makes of another order of sums another run; a protocol's patience ends lanes apart.
    if not one_fit or {cell.precision, cell.scoring} != {"float32"} or getattr(cell.budget, "patience", False):
        return cell.key
    params = {name: value for name, value in cell.attack.params.items() if name not in OWN}
    like = cell.attack.model_copy(update={"params": params, "label": ""})
    return cell.model_copy(update={"attack": like}).model_dump_json(exclude={"seed", "defense", "pretrain"})


def run_lanes(runner: Runner, cells: Sequence[Cell]) -> Iterator[Result]:
    """Yield the results of cells of one group: of those that turn out to be alike side by side, of the others alone.

    What goes wrong with one ends that one. Where all of them end together, each is run again alone.
    """
    lanes: dict[Hashable, list[_Lane]] = {}
    alone: list[Cell] = []
    sharing = len(cells) > 1
    for cell in cells:
        lane = _prepared(runner, cell) if sharing else None
        if lane and lane.key is not None:
            lanes.setdefault(lane.key, []).append(lane)
        else:
            # Preparing an attack may cost a search; where it is in vain for one it is for all.
            sharing = sharing and lane is None
            alone.append(cell)
    for group in lanes.values():
        if len(group) > 1:
            yield from _side_by_side(runner, group)
        else:
            alone.append(group[0].bench.cell)
    yield from (runner.run(cell) for cell in alone)


def _prepared(runner: Runner, cell: Cell) -> _Lane | None:
    """Return a cell about to train, with no key where it must do so alone; None for one that ends before."""
    found: list[_Lane] = []
    bench = runner.bench(cell)

    def prepare() -> None:
        view, grant = bench.faced(weights)
        with global_seeds(grant.key):
            fit, meter = begun(bench.attack, grant)
        with grant.numerics():
            key = None if fit.told else lane_key(fit)
        found.append(_Lane(bench, protection, view, grant, fit, meter, key))

    if runner.applies(bench)[0] == "ok":
        weights, protection = runner.protected(cell)
        if protection.status == "ok":
            guarded(runner.limits.cell_seconds, prepare)
    return found[0] if found else None


def _side_by_side(runner: Runner, lanes: Sequence[_Lane]) -> Iterator[Result]:
    start = time.perf_counter()
    status, error = guarded(runner.limits.cell_seconds * len(lanes), lambda: _climb(lanes))
    if status not in ("ok", "timeout"):
        yield from (runner.run(lane.bench.cell) for lane in lanes)
        return
    seconds = (time.perf_counter() - start) / len(lanes)
    for lane in lanes:
        ended: tuple[Status, str] = ("diverged", lane.failed) if lane.failed else (status, error)
        lane.bench.lanes = len(lanes)
        yield result_of(lane.bench, *ended, lane.protection, lane.rows, seconds)


def _climb(lanes: Sequence[_Lane]) -> None:
    """Train lanes, and append to the rows of each that has not failed at every budget."""
    course, meter, first = Lanes([lane.fit for lane in lanes]), Meter(), lanes[0]
    with first.grant.numerics():
        for end in course.climb(first.grant.ends, meter):
            # They share a task, so that its images are the same for all of them.
            val, right = course.correct(first.view.val), course.correct(first.view.test)
            for k, lane in enumerate(lanes):
                lane.failed = course.failed[k]
                if not lane.failed:
                    cost, paid = lane.meter.cost + meter.cost, lane.meter.paid + meter.paid
                    at = Snapshot(end, cost, paid, lane.fit.adapted)
                    lane.rows.append(lane.bench.row(at, lane.view, lane.grant, float(val[k].double().mean()), right[k]))
            if all(course.failed):
                return
