"""Robustness, factor by factor: the best that an attacker does with one optimizer, rate or method, all else free."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from ntbench.measure.areas import mean_weights
from ntbench.measure.budgets import restricted_over_compute
from ntbench.measure.choice import choose
from ntbench.measure.compute import restricted_uplift
from ntbench.measure.curves import Attacker
from ntbench.measure.standing import Results, Standing, studied
from ntbench.measure.tracks import Run
from ntbench.suite import Suite

FACTORS = {"optimizer": "optimizer", "rate": "lr", "schedule": "schedule", "batch size": "batch_size"}
"""Factors as papers name them, by the parameter that holds them."""
METHOD = "method"
RESTRICTED = {"samples": restricted_uplift, "compute": restricted_over_compute}
"""The uplift on a suite's axis of an attacker who has some of a row's runs."""


def factors_table(results: Results, suite: Suite) -> pd.DataFrame:
    """Return accuracy and leak of the best attack of each value of each factor, the others at their best.

    One row per task, track, factor, value, defense and mask. Accuracy is that of the release alone, a mean over the
    log range of samples; for the leak the attacker may take all of the baseline's runs as well. A factor with a single
    value on every row of a task is left out.
    """
    rows: list[tuple[Any, ...]] = []
    for standing in studied(results, suite).standings:
        if len(standing.curves.counts) > 1:
            rows += _rows(standing)
    names = ["task", "track", "factor", "value", "defense", "mask", "accuracy", "leak"]
    table = pd.DataFrame(rows, columns=names)
    several = table.groupby(["task", "track", "factor"])["value"].transform("nunique") > 1
    return table[several].sort_values(names[:3], kind="stable", ignore_index=True)


def _rows(standing: Standing) -> Iterator[tuple[Any, ...]]:
    curves, unprotected = standing.curves, standing.field.unprotected(standing.row)
    below = _added(unprotected.attacker, unprotected.weights) if unprotected and unprotected.known else np.nan
    restricted = RESTRICTED[standing.field.suite.axis]
    for (factor, value), runs in _groups(standing).items():
        score = choose(curves, runs).score
        whole = np.isfinite(score).all(axis=0)
        accuracy = float((mean_weights(curves.counts) @ score[:, whole]).mean()) if whole.any() else np.nan
        left = restricted(curves, runs, standing.pool) / below if below > 0 else np.nan
        place = (curves.task.name, standing.field.track, factor, value, standing.release.label, standing.row.mask)
        yield (*place, accuracy, left)


def _added(gains: np.ndarray[tuple[int, ...], np.dtype[np.float64]], weights: Any) -> float:
    return float(np.tensordot(weights, gains, axes=1).mean())


def _groups(standing: Standing) -> dict[tuple[str, str], list[Run]]:
    found: dict[tuple[str, str], list[Run]] = {}
    for run in standing.pool.release:
        for factor, value in _values(standing.curves.attacks[run[1]]).items():
            found.setdefault((factor, value), []).append(run)
    return found


def _values(attack: Attacker) -> dict[str, str]:
    values = {factor: attack.params[name] for factor, name in FACTORS.items() if attack.params.get(name) is not None}
    told = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in values.items()}
    kinds = [f"{name} {attack.params[name]}" for name in ("init", "scope") if attack.params.get(name) is not None]
    return told | {METHOD: ", ".join([attack.name, *kinds])}
