"""Two runs beside each other: what moved, and whether it is noise; and one cell computed twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import ne
from typing import Any

import numpy as np
import pandas as pd

from ntbench.measure.intervals import UNKNOWN, Interval
from ntbench.suite import Suite
from ntbench.types import MethodSpec, Protection, Result, with_mask

PLACE = ["task", "track", "defense", "mask"]
NUMBERS = ("leak", "uplift", "slc", "speedup", "drop")
"""What is compared; a speed-up as a ratio, the others as differences."""
SOURCE = ("source_before", "source_after", "zero_shot", "sparsity", "clean", "kept")
DRAWN = tuple(sorted(Protection.later - {"drawn"}))
"""What is compared of a release, and of what it makes, but for pictures, which are not published."""
SAME = 1e-12
ROUNDING = 1e-9
"""What part of a distance between images is none: linear algebra sums in an order that depends on the processor."""


def differences_table(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Return one line per row of either of two leaderboards and number, with both values, the change and what it is.

    `what` is `same`, `moved` (the interval of the change leaves 0 out), `noise`, `few seeds` (no interval to judge by),
    or `only before` and `only after`. The interval of a change is MOVER's (Zou and Donner, 2008) from the two
    intervals, as of independent runs: where runs share seeds and images it is the cautious one.
    """
    held = [{tuple(row[name] for name in PLACE): row for row in table.to_dict("records")} for table in (before, after)]
    rows = []
    for place in dict.fromkeys([*held[0], *held[1]]):
        pair = held[0].get(place), held[1].get(place)
        for name in NUMBERS:
            one, other = (_interval(row, name) for row in pair)
            if np.isfinite([one.point, other.point]).any():
                moved = change(one, other, ratio=name == "speedup")
                rows.append((*place, name, *one, *other, *moved, _what(pair, one, other, moved)))
    ends = [f"{which}{end}" for which in ("before", "after", "change") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=[*PLACE, "number", *ends, "what"])


def change(before: Interval, after: Interval, ratio: bool = False) -> Interval:
    """Return the difference of two independent numbers with MOVER's interval; a ratio's is of their logarithms."""
    if ratio:
        with np.errstate(divide="ignore", invalid="ignore"):
            before, after = (Interval(*(float(np.log(v)) for v in found)) for found in (before, after))
    point = after.point - before.point
    down = float(np.hypot(after.point - after.low, before.high - before.point))
    up = float(np.hypot(after.high - after.point, before.point - before.low))
    return Interval(point, point - down, point + up)


def _interval(row: Any, name: str) -> Interval:
    return UNKNOWN if row is None else Interval(*(float(row[f"{name}{end}"]) for end in ("", "_low", "_high")))


def _what(pair: Sequence[Any], before: Interval, after: Interval, moved: Interval) -> str:
    if not np.isfinite(moved.point):
        return "only after" if np.isnan(before.point) else "only before" if np.isnan(after.point) else "unknown"
    if max(abs(a - b) for a, b in zip(before, after, strict=True)) <= SAME:
        return "same"
    if any(row["interval"] == "range" for row in pair) or np.isnan(moved).any():
        return "few seeds"
    return "noise" if moved.low <= 0 <= moved.high else "moved"


def recipes_changed(
    before: tuple[Sequence[Result], Suite], after: tuple[Sequence[Result], Suite]
) -> Iterator[tuple[str, str, str]]:
    """Yield what differs between two runs: settings of the suite, methods, versions and data, with both values."""
    suites = [_settings(suite) for _, suite in (before, after)]
    for name in suites[0]:
        if name not in ("defenses", "attacks", "tasks") and suites[0][name] != suites[1][name]:
            yield name, str(suites[0][name]), str(suites[1][name])
    facts = [dict(_facts(results)) for results, _ in (before, after)]
    for name in dict.fromkeys([*facts[0], *facts[1]]):
        one, other = (found.get(name, "absent") for found in facts)
        if one != other:
            yield name, one, other


def _settings(suite: Suite) -> dict[str, Any]:
    # What is left out at its default differs from what is not.
    held = suite.model_dump(mode="json")
    return {name: held.get(name, getattr(suite, name)) for name in type(suite).model_fields}


def _facts(results: Iterable[Result]) -> Iterator[tuple[str, str]]:
    for result in results:
        for spec in (result.cell.defense, result.cell.attack):
            yield f"{spec.kind} {with_mask(spec.label, spec.params.get('mask'))}", _said(spec)
        origin = result.provenance
        if origin:
            yield from {**origin.versions, **origin.data}.items()


def _said(spec: MethodSpec) -> str:
    params = ", ".join(f"{name} {value}" for name, value in sorted(spec.params.items()))
    return f"{spec.name} version {spec.version}, code {spec.code}: {params}"


def cell_differences(before: Result, after: Result) -> Iterator[str]:
    """Yield in words what differs between two results of one recipe, but for times: nothing if it repeats bit for bit.

    Which images are right is not compared, and distances between images may differ by `ROUNDING` of themselves.
    """
    if after.status != before.status:
        reason = f" ({after.error.splitlines()[0]})" if after.error else ""
        yield f"status {before.status} is {after.status}{reason}"
    ours, theirs = after.trajectory, before.trajectory
    if ours.step != theirs.step:
        yield f"budgets {list(theirs.step)} are {list(ours.step)}"
        return
    for name in ("val", "test", "samples", "flops"):
        for step, was, now in zip(theirs.step, getattr(theirs, name), getattr(ours, name), strict=True):
            if was != now:
                yield f"{name} at {step} steps, {was:.6g}, is {now:.6g}"
    if _apart(before.frechet, after.frechet):
        yield f"frechet, {before.frechet}, is {after.frechet}"
    yield from _source(before.protection, after.protection)


def _source(before: Protection | None, after: Protection | None) -> Iterator[str]:
    if before is None or after is None:
        return
    for names, differ in ((SOURCE, ne), (DRAWN, _apart)):
        for name in names:
            was, now = getattr(before, name), getattr(after, name)
            if differ(was, now):
                yield f"{name} differs" if isinstance(was, str) else f"{name}, {was}, is {now}"


def _apart(was: Any, now: Any) -> bool:
    """Return whether distances, or what there is in place of them, differ by more than rounding."""
    if was is None or now is None or np.shape(was) != np.shape(now):
        return bool(was != now)
    return not np.allclose(was, now, rtol=ROUNDING, atol=0)
