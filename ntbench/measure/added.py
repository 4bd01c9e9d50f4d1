"""What attacks add to a board: on which rows the attacker takes them, how far uplift and leak rise, at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ntbench.measure.board import ends
from ntbench.measure.curves import COSTS
from ntbench.measure.gains import weighted
from ntbench.measure.intervals import UNKNOWN, Interval, kind_of
from ntbench.measure.standing import Standing, Study
from ntbench.suite import Suite
from ntbench.types import Mask, Result

COLUMNS = (
    *("task", "track", "defense", "mask", "taken", "wins", "rise", "rise_low", "rise_high"),
    *(f"{name}{end}" for name in ("leak_before", "leak", "uplift") for end in ("", "_low", "_high")),
    *("speedup_before", "speedup", "steps", "flops", "seconds", "interval", "seeds"),
)


def added_table(others: Sequence[Result], new: Sequence[Result], suite: Suite) -> pd.DataFrame:
    """Return one row per row of a board that faces the attacks of `new`: what these add beside those of `others`.

    The baseline faces both, so that uplift may fall. `taken` is the share of sample counts and seeds at which the
    attacker takes one of the new attacks on the release; the row is won where that is above 0. `rise` is that of the
    uplift, paired by seed and test image; it and `leak_before` are unknown where others have no such row. `steps`,
    `flops` and `seconds` are the mean of the new attacks' runs on the release up to the horizon. Of `others`, attacks
    that are among the new ones are left out. Raises UserError where the two do not fit together.
    """
    places = {(r.cell.attack.label, r.cell.mask) for r in new}
    rest = [r for r in others if (r.cell.attack.label, r.cell.mask) not in places]
    before = {s.place: s for s in Study(rest, suite).standings}
    after = (s for s in Study([*rest, *new], suite).standings if not s.release.baseline)
    rows = [_record(s, before.get(s.place), faced) for s in after if (faced := _faced(s, places))]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _faced(standing: Standing, places: set[tuple[str, Mask]]) -> list[tuple[int, int]]:
    attacks = standing.curves.attacks
    return [run for run in standing.pool.release if (attacks[run[1]].label, attacks[run[1]].mask) in places]


def _record(standing: Standing, before: Standing | None, faced: list[tuple[int, int]]) -> dict[str, Any]:
    choice = standing.gain.choice
    chosen = [choice.runs.index(run) for run in faced]
    taken = float(np.isin(choice.run, chosen).sum() / max((choice.run >= 0).sum(), 1))
    place = dict(zip(COLUMNS, standing.place, strict=False))
    timed = standing.field.track != "unlabelled"
    return {
        **place,
        "taken": taken,
        "wins": taken > 0,
        **ends("rise", _rise(standing, before) if before else UNKNOWN),
        **ends("leak_before", before.leak if before else UNKNOWN),
        **ends("leak", standing.leak),
        **ends("uplift", standing.uplift),
        "speedup_before": before.speedup().interval.point if before and timed else np.nan,
        "speedup": standing.speedup().interval.point if timed else np.nan,
        **_costs(standing, faced),
        "interval": kind_of(len(standing.gain.seeds), standing.release.one_file),
        "seeds": len(standing.gain.seeds),
    }


def _rise(after: Standing, before: Standing) -> Interval:
    new, old = after.judging, before.judging
    seeds = [seed for seed in new.seeds if seed in old.seeds]
    if not (seeds and new.known and old.known) or not np.array_equal(new.weights, old.weights):
        return UNKNOWN
    return weighted(new.at(seeds)[0] - old.at(seeds)[0], new.weights)


def _costs(standing: Standing, faced: list[tuple[int, int]]) -> dict[str, float]:
    at = tuple(np.array(faced).T)
    held = {name: standing.curves.grid.cost[COSTS.index(name)][at][..., -1] for name in ("steps", "flops", "seconds")}
    return {name: float(np.nanmean(v)) if np.isfinite(v).any() else np.nan for name, v in held.items()}
