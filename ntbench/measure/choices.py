"""What attackers take at every sample count and seed: the way from a row's number to single cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ntbench.measure.choice import Choice
from ntbench.measure.standing import Results, Standing, studied
from ntbench.measure.tables import COORDINATES, places_of
from ntbench.suite import Suite
from ntbench.types import Result, columns_of

COLUMNS = ("task", "track", "defense", "mask", "attacker", "samples", "seed", "start", "attack", "attack_mask", "steps")


def choices_table(results: Results, suite: Suite) -> pd.DataFrame:
    """Return one row per row of the board, attacker, sample count and seed: the run that is taken and its test score.

    `attacker` is `rational`, `release` (who has the release alone) or `baseline`; `start` is the row that the run began
    from and `steps` its budget.
    """
    rows = [row for standing in studied(results, suite).standings for row in _of(standing)]
    return pd.DataFrame(rows, columns=[*COLUMNS, "score"])


def _of(standing: Standing) -> list[tuple[Any, ...]]:
    found = standing.gain
    place = standing.place
    attackers = {"rational": found.choice, "release": found.own, "baseline": found.baseline}
    return [(*place, who, *run) for who, choice in attackers.items() for run in _runs(standing, choice)]


def _runs(standing: Standing, choice: Choice) -> list[tuple[Any, ...]]:
    curves, rows = standing.curves, []
    for n, count in enumerate(curves.counts):
        for s, seed in enumerate(curves.seeds):
            if (at := choice.place(n, s)) is not None:
                attack, steps = curves.attacks[at[1]], int(curves.end_steps[n, at[4]])
                start = curves.releases[at[0]].label
                rows.append((count, seed, start, attack.label, attack.mask, steps, float(choice.score[n, s])))
    return rows


def keyed(choices: pd.DataFrame, results: Sequence[Result]) -> pd.DataFrame:
    """Return the table with the key of the cell that each run is."""
    columns = columns_of(results)
    where = places_of(columns, COORDINATES)
    keys = dict(zip(zip(*where.values(), strict=True), columns.keys.tolist(), strict=True))
    names = ["task", "start", "attack", "attack_mask", "samples", "seed"]
    places = choices[names].itertuples(index=False, name=None)
    return choices.assign(key=[keys[(*place, "others")] for place in places])
