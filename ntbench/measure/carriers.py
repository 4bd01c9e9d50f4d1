"""Which attacks carry the worst cases, and the smallest set of attacks that carries all of them within a point.

A worst case is what the rational attacker reaches on a row at one sample count, the mean over seeds; where a suite
ranks over compute, at one sample count and budget. An attack carries it alone where an attacker who has no other one,
but may still start without the release, comes within a point of that; where none does, the one that comes nearest
counts. The smallest set is an exact minimum set cover (Karp 1972), found as an integer program.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from ntbench.measure.areas import Array
from ntbench.measure.choice import Choice, choose
from ntbench.measure.standing import Results, Standing, studied
from ntbench.measure.tracks import Run
from ntbench.suite import Suite
from ntbench.types import with_mask

POINT = 0.01
"""How far below a worst case, in accuracy, an attack still carries it."""
COLUMNS = ("track", "attack", "mask", "taken", "alone", "rows", "needed", "cases", "free", "shortfall")
Name = tuple[str, str]
"""An attack's label and mask."""


@dataclass(frozen=True, eq=False)
class Cases:
    """The worst cases of one row, one for each sample count, and budget where that is the axis, that is `there`.

    `worst` [case] are their scores. `taken` [attack, case] is the share of seeds at which the attacker takes an attack
    on the release, `carried` says which attacks carry a case alone, and `free` [case] which cases a start without the
    release carries: these need no attack.
    """

    standing: Standing
    names: tuple[Name, ...]
    there: NDArray[np.bool_]
    worst: Array
    taken: Array
    carried: NDArray[np.bool_]
    free: NDArray[np.bool_]

    @property
    def takers(self) -> tuple[Name, ...]:
        """Return the attacks that the attacker takes, at some seed, in a case that a start anew does not carry."""
        used = (self.taken[:, ~self.free] > 0).sum(axis=1)
        return tuple(name for a, name in enumerate(self.names) if used[a])


def carriers_table(results: Results, suite: Suite) -> pd.DataFrame:
    """Return one row per track and attack that any row faces, tasks together, those that are taken most first.

    Shares are of the track's `cases`, of which a start without the release carries `free`: those `taken` by the
    attacker, over seeds, and those carried `alone`; `rows` are where it is taken, and `needed` says whether the
    smallest set has it. With this set alone no worst case falls by more than `shortfall`.
    """
    rows = sorted((s for s in studied(results, suite).standings if not s.release.baseline), key=_track_of)
    frames = [_table(track, [cases(row) for row in group]) for track, group in groupby(rows, key=_track_of)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(COLUMNS))


def smallest_cover(carried: NDArray[np.bool_]) -> list[int]:
    """Return the fewest columns of [case, attack] one of which at least is true in every row; earlier ones on ties.

    Raises ValueError where a row has none.
    """
    if not carried.any(axis=1).all():
        raise ValueError("no attack carries one of the cases; leave it out")
    if not len(carried):
        return []
    number = carried.shape[1]
    # All their places together cost less than one attack, so that they decide between sets of one size alone.
    cost = 1 + np.arange(number) / (number * number)
    every = LinearConstraint(carried.astype(np.float64), lb=1)
    found = milp(cost, constraints=every, integrality=np.ones(number), bounds=Bounds(0, 1), options={"mip_rel_gap": 0})
    return [int(a) for a in np.flatnonzero(np.round(found.x))]


def cases(standing: Standing) -> Cases:
    """Return the worst cases of a row."""
    pool, runs = standing.pool, standing.pool.all
    choices = _choices(standing, runs)
    worst, taken = _means(choices), np.concatenate([choice.run for choice in choices])
    there = np.isfinite(worst)
    reached = np.array([_with_baseline(standing, [run]) for run in pool.release])
    lost = np.where(np.isfinite(reached), worst - reached, np.inf)[:, there]
    return Cases(
        standing=standing,
        names=tuple(_name(standing, run) for run in pool.release),
        there=there,
        worst=worst[there],
        taken=np.array([(taken == runs.index(run)).mean(axis=1) for run in pool.release])[:, there],
        carried=lost <= np.maximum(lost.min(axis=0), POINT),
        free=(_with_baseline(standing, []) >= worst - POINT)[there],
    )


def _with_baseline(standing: Standing, runs: Sequence[Run]) -> Array:
    """Return what the attacker of a row reaches [case] with some of its attacks and the baseline's own runs."""
    return _means(_choices(standing, tuple(dict.fromkeys((*runs, *standing.pool.baseline)))))


def _means(choices: Sequence[Choice]) -> Array:
    return np.concatenate([_mean(choice.score) for choice in choices])


def _choices(standing: Standing, runs: Sequence[Run]) -> list[Choice]:
    """Return the choices at the horizon alone, or at every budget where the suite ranks over compute."""
    curves = standing.curves
    over_samples = standing.field.suite.axis == "samples"
    return [choose(curves, runs, last=end) for end in ((None,) if over_samples else range(curves.grid.val.shape[-1]))]


def _mean(score: Array) -> Array:
    held = np.isfinite(score)
    return np.where(held.any(axis=1), np.where(held, score, 0).sum(axis=1) / np.maximum(held.sum(axis=1), 1), np.nan)


def _track_of(standing: Standing) -> str:
    return standing.field.track


def _name(standing: Standing, run: Run) -> Name:
    found = standing.curves.attacks[run[1]]
    return found.label, found.mask


def _table(track: str, rows: Sequence[Cases]) -> pd.DataFrame:
    names = list(dict.fromkeys(name for row in rows for name in row.names))
    taken, carried = (np.hstack([_spread(row, names, part) for row in rows]) for part in ("taken", "carried"))
    free = np.concatenate([row.free for row in rows])
    taken[:, free], carried[:, free] = 0, 0
    needed = {names[a] for a in smallest_cover(carried[:, ~free].T.astype(bool))}
    lost = [_shortfall(row, needed) for row in rows]
    whole = max(len(free), 1)
    records = [
        (track, *name, taken[a].sum() / whole, carried[a].sum() / whole, _where(rows, name), name in needed)
        for a, name in enumerate(names)
    ]
    table = pd.DataFrame(records, columns=list(COLUMNS[:-3]))
    table = table.assign(cases=len(free), free=int(free.sum()), shortfall=max(lost, default=0.0))
    return table.sort_values("taken", ascending=False, kind="stable")


def _spread(row: Cases, names: Sequence[Name], part: str) -> Array:
    """Return a row's numbers [attack, case] at the places of all attacks of a track."""
    found = np.zeros((len(names), len(row.worst)))
    found[[names.index(name) for name in row.names]] = getattr(row, part)
    return found


def _shortfall(row: Cases, needed: Collection[Name]) -> float:
    runs = [run for run, name in zip(row.standing.pool.release, row.names, strict=True) if name in needed]
    return float((row.worst - _with_baseline(row.standing, runs)[row.there]).max(initial=0.0))


def _where(rows: Sequence[Cases], name: Name) -> str:
    taken = (row.standing for row in rows if name in row.takers)
    return "; ".join(dict.fromkeys(with_mask(standing.release.label, standing.row.mask) for standing in taken))
