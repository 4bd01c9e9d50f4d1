"""Tables behind figures: learning curves, budgets, single attacks, the map over tasks, what a suite can tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ntbench.measure.areas import Array, mean_weights, trapezoid_weights
from ntbench.measure.choice import choose
from ntbench.measure.gains import area_alone, weighted
from ntbench.measure.intervals import SEEDS_FOR_AN_INTERVAL
from ntbench.measure.paper import claim
from ntbench.measure.standing import Results, studied
from ntbench.suite import Suite
from ntbench.types import NONE

ROW = ["task", "track", "defense", "mask"]


def learning_curves(results: Results, suite: Suite) -> pd.DataFrame:
    """Return test scores at the horizon per row, sample count and seed, NaN where there is none.

    `worst` is what the attacker of the release alone reaches, `rational` the one who may take the baseline's runs,
    `baseline` the one without the release; `paper` is the paper's attack and `paper_scratch` the same from scratch.
    """
    rows: list[tuple[Any, ...]] = []
    for standing in studied(results, suite).standings:
        curves, found = standing.curves, standing.gain
        told = claim(curves, standing.row.release, suite)
        choices = (found.own, found.choice, found.baseline, told.ours, told.theirs)
        for n, count in enumerate(curves.counts):
            for s, seed in enumerate(curves.seeds):
                scores = (np.nan if choice is None else float(choice.score[n, s]) for choice in choices)
                rows.append((*standing.place, count, seed, *scores))
    names = ["samples", "seed", "worst", "rational", "baseline", "paper", "paper_scratch"]
    return pd.DataFrame(rows, columns=[*ROW, *names])


def budgets_table(results: Results, suite: Suite) -> pd.DataFrame:
    """Return per row and budget, in units of T90, what a release adds, averaged over sample counts, with its ends.

    `accuracy` is the rational attacker's test score and `baseline` that without the release.
    """
    rows: list[tuple[Any, ...]] = []
    for standing in studied(results, suite).standings:
        found = standing.compute_gains
        if found is None:
            continue
        least = min(len(steps) for steps, _ in found)
        ends = standing.curves.grid.val.shape[-1]
        for back in range(least, 0, -1):
            gains = np.mean([gains[-back] for _, gains in found], axis=0)
            shares = [
                steps[-back] / steps[-1] * h for (steps, _), h in zip(found, standing.curves.horizons, strict=True)
            ]
            scores = (
                float(np.nanmean(choose(standing.curves, runs, last=ends - back).score))
                for runs in (standing.pool.all, standing.pool.baseline)
            )
            rows.append((*standing.place, float(np.mean(shares)), *weighted(gains[None], np.ones(1)), *scores))
    names = ["budget", "uplift", "uplift_low", "uplift_high", "accuracy", "baseline"]
    return pd.DataFrame(rows, columns=[*ROW, *names])


def heatmap_table(results: Results, suite: Suite) -> pd.DataFrame:
    """Return per row and single attack SLC-AUC against the tuned baseline, and test accuracy over the log range.

    The attacker has one attack and all of its budgets; NaN where no seed has every sample count.
    """
    rows: list[tuple[Any, ...]] = []
    for standing in studied(results, suite).standings:
        curves = standing.curves
        for run in standing.pool.release if len(curves.counts) > 1 else ():
            score, base = choose(curves, [run]).score, standing.gain.baseline.score
            whole = np.isfinite(score + base).all(axis=0)
            attack = curves.attacks[run[1]]
            numbers = _areas(curves.counts, (score - base)[:, whole], score[:, whole])
            rows.append((*standing.place, attack.label, attack.mask, *numbers))
    return pd.DataFrame(rows, columns=[*ROW, "attack", "attack_mask", "slc", "accuracy"])


def _areas(counts: Sequence[int], gaps: Array, own: Array) -> tuple[float, float]:
    """Return SLC-AUC of gaps [counts, seeds] and the mean of scores over the log range, NaN without seeds."""
    if not gaps.size:
        return np.nan, np.nan
    return float(trapezoid_weights(counts) @ gaps.mean(axis=1)), float(mean_weights(counts) @ own.mean(axis=1))


def map_table(results: Results, suite: Suite) -> pd.DataFrame:
    """Return SLC-AUC of the release alone and leak per source, target, track, defense and mask."""
    rows = []
    for standing in studied(results, suite).standings:
        task = standing.curves.task
        numbers = (area_alone(standing.gain).point, standing.leak.point)
        rows.append((task.source, task.target, *standing.place, *numbers))
    return pd.DataFrame(rows, columns=["source", "target", *ROW, "slc", "leak"])


def detectable(results: Results, suite: Suite) -> float:
    """Return the smallest leak that a suite tells from 0: a row that leaks less has an interval that reaches 0.

    It is the larger half of each ranked row's interval, the median over the rows that are protected and have one; NaN
    under five seeds.
    """
    halves = [
        max(s.leak.point - s.leak.low, s.leak.high - s.leak.point)
        for s in studied(results, suite).standings
        if s.ranked and s.release.name != NONE and len(s.gain.seeds) >= SEEDS_FOR_AN_INTERVAL
    ]
    known = [half for half in halves if np.isfinite(half)]
    return float(np.median(known)) if known else np.nan
