"""The leaderboard: per task and track, what each release still adds for its strongest attacker, and the verdict."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from ntbench.measure import compute
from ntbench.measure.choice import Choice
from ntbench.measure.costs import HEADLINE, QUANTILES
from ntbench.measure.curves import ABSENT, COSTS, STATES, Curves
from ntbench.measure.gains import area_alone
from ntbench.measure.gates import GATES, in_words
from ntbench.measure.intervals import Interval, kind_of
from ntbench.measure.paper import claim
from ntbench.measure.ranking import Rank, by_leak, ranks
from ntbench.measure.standing import Results, Standing, studied
from ntbench.suite import Suite
from ntbench.types import CONTROLS, SETTLED

TUNED = ("trials", "tuning_steps", "tuning_flops")
"""What a row says whose defense was tuned for the task; all others are without."""
DRAWN = tuple(
    f"{kind}{when}{end}" for kind in ("frechet", "kid") for when in ("_before", "") for end in ("", "_spread")
)
"""What a row says whose models make images; all others are without."""
NATURAL = ("natural_before", "natural", "clipped")
"""What a row says whose scores stand for errors; all others are without."""
LATER = (*TUNED, *DRAWN, *NATURAL)
"""Columns that a published row may lack."""
SPEEDUPS = tuple(f"speedup_{cost}_{q}" for cost in COSTS for q in QUANTILES)
COLUMNS = (
    *("task", "track", "defense", "mask", "needs", "control", "baseline", "ranked"),
    *("rank", "rank_low", "rank_high", "verdict", "reason"),
    *(f"{name}{end}" for name in ("leak", "uplift", "slc", "compute_uplift") for end in ("", "_low", "_high")),
    *("scratch_uplift", "oracle_leak", "oracle_uplift", "own_leak", "own_uplift"),
    *("speedup", "speedup_low", "speedup_high", "speedup_bound", "overhead", "overhead_bound", *SPEEDUPS),
    *("drop", "drop_low", "drop_high", "source_before", "source_after", "zero_shot", "sparsity"),
    *("attack", "attacks", "takes_baseline", "interval", "seeds", "cells", "failed", "faced", "inapplicable"),
    *(f"gate_{gate}" for gate in GATES),
    "gates",
    *("paper_attack", "paper_mask", "paper_slc", "paper_slc_low", "paper_slc_high", "paper_overhead"),
    *("search_uplift", "grid_uplift", "search_steps", "grid_steps"),
    *("protect_steps", "protect_seconds", "protect_flops", "protect_seconds_ratio", *LATER, "note"),
)
Record = dict[str, Any]


def leaderboard_table(results: Results, suite: Suite) -> pd.DataFrame:
    """Return one row per task, track, defense and mask, by task and track, the least leak first.

    Scores and gains are fractions; where `_bound`, the median run never got to the goal, so that a speed-up is an upper
    bound and an overhead a lower one. Rows that lost their source stand behind those that did not. Raises UserError for
    mixed results.
    """
    records: list[Record] = []
    for field in studied(results, suite).fields:
        places = ranks(field.standings)
        rows = sorted(field.standings, key=_order)
        records += [_record(standing, places.get(standing, Rank()), suite) for standing in rows]
    table = pd.DataFrame(records, columns=list(COLUMNS))
    return table.astype(dict.fromkeys(("rank", "rank_low", "rank_high"), "Int64"))


def gates_table(results: Results, suite: Suite) -> pd.DataFrame:
    """Return one row per task, track, defense, mask and gate: whether it passes, and what fails and would mend it."""
    rows = []
    for standing in studied(results, suite).standings:
        place = standing.place
        for gate in GATES:
            reasons = dict.fromkeys(failure.reason for failure in standing.failures if failure.gate == gate)
            rows.append((*place, gate, not reasons, "; ".join(reasons)))
    return pd.DataFrame(rows, columns=["task", "track", "defense", "mask", "gate", "passed", "reason"])


def _order(standing: Standing) -> tuple[Any, ...]:
    return (not standing.usable, *by_leak(standing.leak.point, standing.leak.high))


def _record(standing: Standing, place: Rank, suite: Suite) -> Record:
    release, curves = standing.release, standing.curves
    verdict, reason = standing.verdict
    return {
        "task": curves.task.name,
        "track": standing.field.track,
        "defense": release.label,
        "mask": standing.row.mask,
        "control": release.name in CONTROLS,
        "baseline": release.baseline,
        "ranked": standing.ranked,
        "rank": place.rank,
        "rank_low": place.low,
        "rank_high": place.high,
        "verdict": verdict,
        "reason": reason,
        **_gains(standing),
        **_speeds(standing),
        **_source(standing),
        **_attacks(standing),
        **_runs(standing),
        **_gates(standing),
        **_paper(standing, suite),
        **_searched(standing),
        **_tuned(standing),
        "note": _note(standing),
    }


def ends(name: str, found: Interval) -> Record:
    """Return a point and its ends under a column's name."""
    return {name: found.point, f"{name}_low": found.low, f"{name}_high": found.high}


def _gains(standing: Standing) -> Record:
    record = ends("leak", standing.leak) | ends("uplift", standing.uplift) | ends("slc", area_alone(standing.gain))
    record |= ends("compute_uplift", standing.compute) | {"scratch_uplift": standing.over_scratch.point}
    for rule in ("oracle", "own"):
        record[f"{rule}_leak"], record[f"{rule}_uplift"] = standing.by(rule)
    return record


def _speeds(standing: Standing) -> Record:
    if standing.field.track == "unlabelled":
        return {"speedup_bound": "", "overhead_bound": ""}
    head, over = standing.speedup(*HEADLINE), standing.overhead(*HEADLINE)
    record = ends("speedup", head.interval) | {"speedup_bound": head.bound}
    record |= {"overhead": over.interval.point, "overhead_bound": over.bound}
    pairs = [(cost, q) for cost in COSTS for q in QUANTILES]
    return record | {f"speedup_{cost}_{q}": standing.speedup(cost, q).interval.point for cost, q in pairs}


def _source(standing: Standing) -> Record:
    found = standing.effect
    costs = found.means | {"protect_seconds_ratio": found.seconds_ratio}
    return {"needs": found.needs, **ends("drop", found.drop), **costs}


def _attacks(standing: Standing) -> Record:
    found = standing.gain
    names = _strongest(standing.curves, found.own)
    chosen = found.choice.run >= 0
    taken = chosen & ~found.choice.of(standing.row.release)
    return {
        "attack": Counter(names).most_common(1)[0][0] if names else "",
        "attacks": "; ".join(names),
        "takes_baseline": float(taken.sum() / chosen.sum()) if chosen.any() else np.nan,
    }


def _strongest(curves: Curves, choice: Choice) -> list[str]:
    # What the attacker of the release alone takes at each count, at most seeds.
    names = []
    for row in choice.run:
        labels = [curves.attacks[choice.runs[k][1]].label for k in row if k >= 0]
        names.append(Counter(labels).most_common(1)[0][0] if labels else "-")
    return names


def _runs(standing: Standing) -> Record:
    curves, r = standing.curves, standing.row.release
    state = curves.grid.state[r, [a for _, a in standing.pool.release]]
    settled = [STATES.index(status) for status in SETTLED]
    refused = [a for i, a in curves.refused if i == r and _belongs(standing, a)]
    seeds = len(standing.gain.seeds)
    return {
        "interval": kind_of(seeds, standing.release.one_file),
        "seeds": seeds,
        "cells": int((state != ABSENT).sum()),
        "failed": int(((state != ABSENT) & ~np.isin(state, settled)).sum()),
        "faced": len(standing.pool.release),
        "inapplicable": len(refused),
        "clipped": _clipped(standing),
    }


def _clipped(standing: Standing) -> float:
    """Return the share of runs whose score at the horizon stands at an end of its scale; NaN where no error is told."""
    if np.isnan(standing.effect.means["natural"]):
        return np.nan
    scores = standing.curves.grid.test[standing.row.release, [a for _, a in standing.pool.release], :, :, -1]
    there = scores[np.isfinite(scores)]
    return float(np.isin(there, (0.0, 1.0)).mean()) if there.size else np.nan


def _belongs(standing: Standing, attack: int) -> bool:
    found = standing.curves.attacks[attack]
    return found.track in standing.granted and standing.row.mask in ("dense", found.mask)


def _gates(standing: Standing) -> Record:
    failed = {failure.gate for failure in standing.failures}
    return {f"gate_{gate}": gate not in failed for gate in GATES} | {"gates": in_words(standing.failures)}


def _paper(standing: Standing, suite: Suite) -> Record:
    found = claim(standing.curves, standing.row.release, suite)
    setting = {"paper_attack": found.attack, "paper_mask": found.mask}
    return setting | ends("paper_slc", found.slc) | {"paper_overhead": found.overhead.interval.point}


def _searched(standing: Standing) -> Record:
    (grid, grid_steps), (found, steps) = compute.listed(standing).last, compute.search(standing).last
    return {"search_uplift": found, "grid_uplift": grid, "search_steps": steps, "grid_steps": grid_steps}


def _tuned(standing: Standing) -> Record:
    found = standing.release.tuning
    return dict(zip(TUNED, (found.trials, found.steps, found.flops) if found else (np.nan,) * len(TUNED), strict=True))


def _note(standing: Standing) -> str:
    notes = []
    if away := len(standing.curves.seeds) - len(standing.gain.seeds):
        notes.append(f"{away} seeds lack a run that counts")
    if standing.field.track != "unlabelled":
        held = standing.speedup(*HEADLINE).counts
        if counts := ", ".join(str(n) for n in standing.curves.counts if n not in held):
            notes.append(f"speed-up without {counts} samples, where nobody is known to reach the goal")
    return "; ".join(notes)
