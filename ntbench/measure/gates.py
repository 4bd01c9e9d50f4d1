"""Gates: the conditions without which a board gives no verdict, with what failed and what would mend it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ntbench.measure.areas import Array
from ntbench.measure.choice import TOLERANCE, choose
from ntbench.measure.curves import ABSENT, STATES, Curves
from ntbench.measure.intervals import Interval
from ntbench.measure.tracks import Pool, Row, Run, Runs, facing, granted_to
from ntbench.suite import Suite
from ntbench.types import FILE, NONE, SETTLED, Track

GATES = ("converged", "horizon", "transfers", "inside", "complete")
GAINED = 0.01
"""The accuracy that a converged baseline gains at most over the second half of its budget."""
HORIZON = 8.0
"""The least largest budget in units of T90."""
UNREFERENCED = "no undefended weights are given, so that there is neither leak nor verdict"
DIVERGED = 1 / 3
RATES = 3
"""From so many rates of one family on, the winner may not be at their edge."""


@dataclass(frozen=True)
class Failure:
    """A gate that does not pass, why, and what would mend it."""

    gate: str
    reason: str


def converged(curves: Curves, track: Track) -> Iterator[Failure]:
    """Yield the counts at which the baseline still gained a point or more over the second half of its budget."""
    runs = _all_baseline_runs(curves, track)
    if not runs:
        yield Failure("converged", "no baseline has run; run `scratch`")
        return
    for n, count in enumerate(curves.counts):
        steps = curves.end_steps[n]
        if not (steps <= 0.55 * steps[-1]).any():
            yield Failure("converged", f"nothing was scored at half of the horizon at {count} samples; raise `horizon`")
            continue
        half = int(np.nanargmin(np.abs(np.log(2 * steps / steps[-1]))))
        whole, part = (choose(curves, runs, last=e).score[n] for e in (len(steps) - 1, half))
        gained = _mean(whole - part)
        if not gained < GAINED - TOLERANCE:
            yield _unconverged(gained, count, curves.horizons[n])


def _mean(values: Array) -> float:
    there = values[np.isfinite(values)]
    return float(there.mean()) if there.size else np.nan


def _unconverged(gained: float, count: int, horizon: float) -> Failure:
    if np.isnan(gained):
        return Failure("converged", f"the baseline has no run to half of the horizon at {count} samples; run one")
    said = f"the baseline still gained {100 * gained:.1f} points over the second half at {count} samples"
    return Failure("converged", f"{said}; raise `horizon` to {2 * horizon:g}")


def horizon(curves: Curves) -> Iterator[Failure]:
    """Yield the counts at which the budget is under 8 T90, or T90 and the plateau are not frozen."""
    levels = {level.samples: level for level in curves.task.levels}
    for n, count in enumerate(curves.counts):
        level = levels.get(count)
        if level is None or level.t90 is None or level.plateau is None:
            yield Failure(
                "horizon", f"T90 and the plateau at {count} samples are not measured; measure and freeze them"
            )
        elif curves.end_steps[n, -1] < round(HORIZON * level.t90):
            reached = curves.end_steps[n, -1] / level.t90
            yield Failure("horizon", f"{reached:.1f} T90 at {count} samples are under 8; raise `horizon` to 8")


def transfers(unprotected: Interval, given: bool = True) -> Iterator[Failure]:
    """Yield a failure where nobody knows that the unprotected release adds anything, or where none is `given`."""
    if not given:
        yield Failure("transfers", f"{UNREFERENCED}; name them as `undefended`")
    elif np.isnan(unprotected.point):
        yield Failure("transfers", "the unprotected release has no uplift here; run `none` and `scratch`")
    elif not unprotected.above_zero:
        ends = f"{100 * unprotected.low:.1f} to {100 * unprotected.high:.1f}"
        said = f"the unprotected release adds {100 * unprotected.point:.1f} points ({ends})"
        yield Failure("transfers", f"{said}: there is nothing to protect; take a closer source or more seeds")


def inside(curves: Curves, runs: Sequence[Run]) -> Iterator[Failure]:
    """Yield the counts at which the best run on a release has the lowest or highest rate of three or more."""
    edges = _edges(curves)
    where: dict[tuple[int, int], list[str]] = {}
    for count, run in _winners(curves, runs, -1):
        if run[1] in edges:
            where.setdefault(run, []).append(str(count))
    for (r, a), counts in where.items():
        side, rate = edges[a]
        said = f"{curves.attacks[a].label!r} wins on {curves.releases[r].label} at {', '.join(counts)} samples with the"
        yield Failure("inside", f"{said} {side} rate of its family, {rate:g}; add a {side.replace('est', 'er')} one")


def _edges(curves: Curves) -> dict[int, tuple[str, float]]:
    families: dict[str, dict[int, float]] = {}
    for a, attack in enumerate(curves.attacks):
        rate = attack.params.get("lr")
        if isinstance(rate, int | float):
            rest = {name: value for name, value in attack.params.items() if name != "lr"}
            families.setdefault(json.dumps([attack.name, rest], sort_keys=True), {})[a] = float(rate)
    found: dict[int, tuple[str, float]] = {}
    for family in families.values():
        if len(set(family.values())) >= RATES:
            low, high = min(family.values()), max(family.values())
            found |= {a: ("lowest" if r == low else "highest", r) for a, r in family.items() if r in (low, high)}
    return found


def _winners(curves: Curves, runs: Sequence[Run], end: int) -> list[tuple[int, Run]]:
    if not runs:
        return []
    r, a = Runs.of(runs).at
    val = curves.grid.val[r, a, :, :, end]
    there = np.isfinite(val)
    means = np.where(there.any(axis=2), np.where(there, val, 0).sum(axis=2) / np.maximum(there.sum(axis=2), 1), -np.inf)
    best = (means >= means.max(axis=0) - TOLERANCE).argmax(axis=0)
    able = np.isfinite(means.max(axis=0))
    return [(count, runs[best[n]]) for n, count in enumerate(curves.counts) if able[n]]


def complete(curves: Curves, row: Row, track: Track, suite: Suite) -> Iterator[Failure]:
    """Yield what a row lacks: attacks, counts or seeds of the suite, runs that failed, too many that diverged."""
    label, faced = curves.releases[row.release].label, facing(curves, row, track)
    yield from _unmet(curves, row, track)
    counts = [level.samples for level in curves.task.levels]
    if gone := [str(n) for n in counts if n not in curves.counts]:
        yield Failure("complete", f"nothing ran at {', '.join(gone)} samples; run the whole suite")
    if away := [str(s) for s in suite.seeds if s not in curves.seeds]:
        yield Failure("complete", f"nothing ran at seed {', '.join(away)}; run the whole suite")
    state = curves.grid.state[row.release, faced]
    diverged = state == STATES.index("diverged")
    lacking = ~diverged & ~np.isin(state, [STATES.index(status) for status in SETTLED])
    if lacking.any():
        names = [curves.attacks[a].label for a, bad in zip(faced, lacking.any(axis=(1, 2)), strict=True) if bad]
        missing = int((state == ABSENT)[lacking].sum())
        said = f"{label}: {missing} runs are missing and {int(lacking.sum()) - missing} failed"
        yield Failure("complete", f"{said}, first of {names[0]!r}; run them again")
    if state.size and diverged.sum() >= DIVERGED * (state != ABSENT).sum():
        share = 100 * diverged.sum() / (state != ABSENT).sum()
        yield Failure("complete", f"{label}: {share:.0f}% of the runs diverged; add attacks with lower rates")


def _unmet(curves: Curves, row: Row, track: Track) -> Iterator[Failure]:
    release, tracks = curves.releases[row.release], curves.tracks_by_name
    granted, faced = {*granted_to(curves, row.release, track)}, curves.faced[row.release].tolist()
    unmet = [
        label
        for entry, label, mask in curves.planned
        if entry.protocol is None
        and row.mask in ("dense", mask)
        and entry.faces(release.label, release.name)
        # What an attack holds is known from its results alone; one that never ran might belong anywhere.
        and (entry.name not in tracks or tracks[entry.name] & granted)
        and ((a := curves.find(label, mask)) is None or not (faced[a] or (row.release, a) in curves.refused))
    ]
    if unmet:
        others = f" and {len(unmet) - 1} others" if len(unmet) > 1 else ""
        yield Failure("complete", f"{release.label}: {unmet[0]!r}{others} did not run; run the whole suite")


def strong_runs(curves: Curves, pool: Pool) -> Iterator[Failure]:
    """Yield the attacks that win on a release at some budget although a third or more of their runs failed there.

    An attack that failed at every seed has nothing to show at the horizon: it may have won before.
    """
    failed = [STATES.index(status) for status in ("diverged", "error", "timeout")]
    # Of runs that score alike the soundest wins.
    runs = sorted(pool.release, key=lambda run: np.isin(curves.grid.state[run], failed).sum())
    won = chain.from_iterable(_winners(curves, runs, end) for end in range(curves.grid.val.shape[-1]))
    for count, (r, a) in dict.fromkeys(won):
        state = curves.grid.state[r, a, curves.counts.index(count)]
        if np.isin(state, failed).sum() >= DIVERGED * max((state != ABSENT).sum(), 1):
            said = f"{curves.attacks[a].label!r} wins on {curves.releases[r].label} at {count} samples, but"
            yield Failure("complete", f"{said} a third or more of its runs there failed; run a lower rate beside it")


def row_failures(curves: Curves, row: Row, pool: Pool, track: Track, suite: Suite) -> list[Failure]:
    """Return what fails on one row alone."""
    return [
        *inside(curves, pool.release),
        *complete(curves, row, track, suite),
        *strong_runs(curves, pool),
    ]


def board_failures(curves: Curves, track: Track, unprotected: Interval, suite: Suite) -> list[Failure]:
    """Return what fails for every row of a track: whatever rests on the baseline or on the unprotected release."""
    none = curves.named(NONE)
    given = none is not None or all(release.name != FILE for release in curves.releases)
    found = [*converged(curves, track), *horizon(curves), *transfers(unprotected, given)]
    for release in [*curves.baselines, *([] if none is None else [none])]:
        row = Row(release)
        runs = Runs((release, a) for a in facing(curves, row, track))
        found += row_failures(curves, row, Pool(runs, runs), track, suite)
    return found


def in_words(failures: Iterable[Failure]) -> str:
    """Return failures as one line."""
    return "; ".join(dict.fromkeys(f"{failure.gate}: {failure.reason}" for failure in failures))


def _all_baseline_runs(curves: Curves, track: Track) -> Runs:
    return Runs((b, a) for b in curves.baselines for a in facing(curves, Row(b), track))
