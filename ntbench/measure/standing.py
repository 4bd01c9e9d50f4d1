"""One row of one track: its pools, what it adds, what it costs, and what fails on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np

from ntbench.measure import gates, verdicts
from ntbench.measure.budgets import ComputeGains, compute_gains, compute_uplift, gain_over_compute
from ntbench.measure.choice import By
from ntbench.measure.collect import collect
from ntbench.measure.costs import HEADLINE, Crossings, Ratio, cautious, compare
from ntbench.measure.curves import Curves, Release
from ntbench.measure.gains import Gain, gain, leak, uplift
from ntbench.measure.gates import Failure
from ntbench.measure.intervals import UNKNOWN, Interval
from ntbench.measure.protections import Effect, effect
from ntbench.measure.tracks import Pool, Row, granted_to, pool, rows_of, tracks_of, twin_pool
from ntbench.suite import Suite
from ntbench.types import NONE, Mask, Result, Track

GAINS = {"samples": gain, "compute": gain_over_compute}
"""What a suite's axis integrates over; leak, ranks, gates and verdicts rest on it."""


class Field:
    """One track of one task: all that its rows share."""

    def __init__(self, curves: Curves, track: Track, suite: Suite, crossings: Crossings) -> None:
        """Keep what the rows share; everything is worked out once, when it is asked for."""
        self.curves, self.track, self.suite, self.crossings = curves, track, suite, crossings
        self._pools: dict[Row, Pool] = {}
        self._unprotected: dict[Pool, Gain] = {}

    @cached_property
    def standings(self) -> tuple[Standing, ...]:
        """Return the rows of the track in the suite's order."""
        return tuple(Standing(self, row) for row in rows_of(self.curves, self.track))

    def pool(self, row: Row) -> Pool:
        """Return what an attacker of a row chooses from."""
        if row not in self._pools:
            self._pools[row] = pool(self.curves, row, self.track)
        return self._pools[row]

    def none_pool(self, row: Row) -> Pool | None:
        """Return what the attacker of the unprotected release chooses from, under a kept row's attacks beside one."""
        none = self.curves.named(NONE)
        if none is None:
            return None
        if row.mask == "keep":
            return twin_pool(self.curves, none, row, self.track)
        return self.pool(Row(none))

    def unprotected(self, row: Row) -> Gain | None:
        """Return the gain of the unprotected release that a row's leak is divided by."""
        runs = self.none_pool(row)
        if runs is None:
            return None
        if runs not in self._unprotected:
            self._unprotected[runs] = GAINS[self.suite.axis](self.curves, runs)
        return self._unprotected[runs]

    @cached_property
    def failures(self) -> list[Failure]:
        """Return what fails for every row of the track."""
        found = self.unprotected(Row(0))
        added = UNKNOWN if found is None else uplift(found)
        return gates.board_failures(self.curves, self.track, added, self.suite)


class Standing:
    """One row: a release as one kind of attacker sees it."""

    def __init__(self, field: Field, row: Row) -> None:
        """Keep the row and its track; everything is worked out once, when it is asked for."""
        self.field, self.row, self.curves = field, row, field.curves
        self.pool = field.pool(row)
        self._ratios: dict[tuple[str, int, bool], Ratio] = {}

    @property
    def release(self) -> Release:
        """Return the release."""
        return self.curves.releases[self.row.release]

    @property
    def place(self) -> tuple[str, Track, str, Mask]:
        """Return where the row stands in tables: task, track, label and mask."""
        return self.curves.task.name, self.field.track, self.release.label, self.row.mask

    @property
    def granted(self) -> tuple[Track, ...]:
        """Return the tracks of the attacks that count on the row."""
        return granted_to(self.curves, self.row.release, self.field.track)

    @property
    def ranked(self) -> bool:
        """Return whether the row has a place in a ranking."""
        return self.field.track == "target" and self.row.mask == "dense" and not self.release.baseline

    @property
    def judged(self) -> bool:
        """Return whether the row has a verdict."""
        return self.field.track != "unlabelled" and self.row.mask == "dense" and not self.release.baseline

    @cached_property
    def gain(self) -> Gain:
        """Return what the row adds for the rational attacker."""
        return gain(self.curves, self.pool)

    @cached_property
    def judging(self) -> Gain:
        """Return what the row adds on the suite's axis."""
        return self.gain if self.field.suite.axis == "samples" else gain_over_compute(self.curves, self.pool)

    @cached_property
    def uplift(self) -> Interval:
        """Return the uplift of the row."""
        return uplift(self.gain)

    @cached_property
    def leak(self) -> Interval:
        """Return the leak of the row, 0 for a baseline."""
        unprotected = self.field.unprotected(self.row)
        return UNKNOWN if unprotected is None else leak(self.judging, unprotected)

    @cached_property
    def compute(self) -> Interval:
        """Return the uplift over compute."""
        return compute_uplift(self.compute_gains)

    @cached_property
    def compute_gains(self) -> ComputeGains | None:
        """Return what the row adds at every budget."""
        return compute_gains(self.curves, self.pool)

    @cached_property
    def effect(self) -> Effect:
        """Return what protecting did to the source and cost."""
        return effect(self.curves, self.row.release)

    def speedup(self, cost: str = "steps", quantile: int = 90) -> Ratio:
        """Return the baseline's cost to a goal over the rational attacker's; the headline has a cautious upper end."""
        return self._ratio(cost, quantile, False)

    def overhead(self, cost: str = "steps", quantile: int = 90) -> Ratio:
        """Return the cost to a goal from the release alone over the baseline's."""
        return self._ratio(cost, quantile, True)

    def _ratio(self, cost: str, quantile: int, alone: bool) -> Ratio:
        key = (cost, quantile, alone)
        if key not in self._ratios:
            self._ratios[key] = self._compared(cost, quantile, alone)
        return self._ratios[key]

    def _compared(self, cost: str, quantile: int, alone: bool) -> Ratio:
        spent = self.field.crossings.spent
        base = spent(self.pool.baseline, cost, quantile)
        if alone:
            return compare(spent(self.pool.release, cost, quantile), base, base, self.curves.counts)
        rational = spent(self.pool.all, cost, quantile)
        found = compare(base, rational, base, self.curves.counts)
        if (cost, quantile) != HEADLINE:
            return found
        return cautious(found, rational, spent(self.pool.release, cost, quantile), base, self.curves.counts)

    @cached_property
    def failures(self) -> list[Failure]:
        """Return what stands against a verdict: what fails for the whole track, and on this row."""
        found = [*self.field.failures]
        found += gates.row_failures(self.curves, self.row, self.pool, self.field.track, self.field.suite)
        return found

    @cached_property
    def verdict(self) -> tuple[str, str]:
        """Return the verdict and its reason, both empty for a row that has none."""
        if not self.judged:
            return "", ""
        found, tuning = self.effect, self.release.tuning
        lost = verdicts.Lost(found.lost, found.best, tuning.kept if tuning else {})
        numbers = verdicts.Numbers(self.leak, self.speedup().interval, found.drop, len(self.judging.seeds), lost)
        return verdicts.verdict(numbers, self.failures, self.field.suite.max_drop)

    @property
    def usable(self) -> bool:
        """Return whether the release still does its source task, as far as anybody knows."""
        return not (self.effect.lost or self.effect.drop.low > self.field.suite.max_drop)

    def by(self, rule: str) -> tuple[float, float]:
        """Return leak and uplift under another choice: `oracle` by test scores, `own` by the attacker's own samples."""
        if rule == "own" and self.curves.own is None:
            return np.nan, np.nan
        runs = self.field.none_pool(self.row)
        default = self.field.suite.default
        gained: By = "own" if rule == "own" else "oracle"
        measured = GAINS[self.field.suite.axis]
        ours = measured(self.curves, self.pool, gained, default)
        added = uplift(ours)
        if runs is None:
            return np.nan, added.point
        return leak(ours, measured(self.curves, runs, gained, default)).point, added.point

    @cached_property
    def over_scratch(self) -> Interval:
        """Return the uplift over `scratch` alone, as papers have it, where a suite names public weights too."""
        scratch = self.curves.named("scratch")
        if scratch is None or len(self.curves.baselines) == 1:
            return self.uplift
        kept = tuple(run for run in self.pool.baseline if run[0] == scratch)
        return uplift(gain(self.curves, Pool(self.pool.release, kept)))


class Study:
    """All fields of some results; tables that are given one share its work."""

    def __init__(self, results: Iterable[Result], suite: Suite) -> None:
        """Collect the results; raises UserError where they are mixed."""
        self.tasks = collect(results, suite)
        self.fields = tuple(field for curves in self.tasks for field in _fields(curves, suite))

    @property
    def standings(self) -> Iterator[Standing]:
        """Yield every row of every track of every task."""
        for field in self.fields:
            yield from field.standings


Results = Iterable[Result] | Study
"""What tables are made from: results, or a study of them that several tables share."""


def studied(results: Results, suite: Suite) -> Study:
    """Return the study of results, or the one that is given."""
    return results if isinstance(results, Study) else Study(results, suite)


def _fields(curves: Curves, suite: Suite) -> Iterator[Field]:
    crossings = Crossings(curves)
    for track in tracks_of(curves):
        yield Field(curves, track, suite, crossings)
