"""Across tasks: leak as a ratio of summed uplifts, and uplift by means that a single task cannot carry."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import trim_mean

from ntbench.measure.areas import Array
from ntbench.measure.gains import Gain
from ntbench.measure.intervals import LEVEL, SEEDS_FOR_AN_INTERVAL, Interval, Sum, kind_of, moments
from ntbench.measure.standing import Results, Standing, studied
from ntbench.suite import Suite

DRAWS = 2000
QUARTER = 0.25
LEVELS = np.linspace(-0.2, 0.6, 81)
"""Uplifts at which performance profiles are read."""
Key = tuple[str, str, str]
"""Track, defense, mask."""


class Pair(NamedTuple):
    """Uplift [seed, image] of a row and of the unprotected release on one task, at the seeds that both have."""

    row: Array
    none: Array


def tasks_table(results: Results, suite: Suite) -> pd.DataFrame:
    """Return one row per track, defense and mask over the tasks on which it and the unprotected release have a number.

    `leak` is the ratio of summed uplifts, `uplift` the mean over tasks, both with closed intervals; `iqm` is the
    interquartile mean over tasks and seeds, whose ends are those of a bootstrap of seeds and images inside tasks.
    """
    rows: list[tuple[Any, ...]] = []
    for (track, defense, mask), pairs in _pairs(results, suite).items():
        seeds = min(len(pair.row) for pair in pairs)
        uplifts = [pair.row for pair in pairs]
        numbers = (*summed_ratio(pairs), *mean_over_tasks(uplifts), *interquartile_mean(uplifts))
        rows.append((track, defense, mask, len(pairs), kind_of(seeds), seeds, *numbers))
    ends = [f"{name}{end}" for name in ("leak", "uplift", "iqm") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["track", "defense", "mask", "tasks", "interval", "seeds", *ends])


def profiles_table(results: Results, suite: Suite) -> pd.DataFrame:
    """Return performance profiles: the share of tasks and seeds at which a row's uplift is above each level."""
    rows: list[tuple[Any, ...]] = []
    for key, pairs in _pairs(results, suite).items():
        values = np.concatenate([pair.row.mean(axis=1) for pair in pairs])
        rows += [(*key, level, float((values > level).mean())) for level in LEVELS]
    return pd.DataFrame(rows, columns=["track", "defense", "mask", "uplift", "share"])


def summed_ratio(pairs: Sequence[Pair]) -> Interval:
    """Return the ratio of summed uplifts with Fieller's ends; tasks are independent, so that their variances add.

    Undefined unless the interval of the summed uplift of the unprotected release lies above 0.
    """
    return Sum(tuple(moments(np.stack(pair)) for pair in pairs)).ratio([1.0, 0.0], [0.0, 1.0])


def mean_over_tasks(tasks: Sequence[Array]) -> Interval:
    """Return the mean over tasks of uplifts [seed, image] with its closed interval."""
    return Sum(tuple(moments(task[None]) for task in tasks)).interval([1 / len(tasks)])


def interquartile_mean(tasks: Sequence[Array], draws: int = DRAWS, seed: int = 0) -> Interval:
    """Return the interquartile mean over tasks and seeds of uplifts [seed, image], seeds and images resampled in each.

    Draws of S seeds spread too little by sqrt(1 - 1 / S), which their ends make good. Under five seeds the ends are the
    range of the seeds, task by task in one order.
    """
    values = [task.mean(axis=1) for task in tasks]
    point, seeds = float(trim_mean(np.concatenate(values), QUARTER)), min(map(len, values))
    if seeds < SEEDS_FOR_AN_INTERVAL:
        each = trim_mean(np.array([v[:seeds] for v in values]), QUARTER, axis=0)
        return Interval(point, min(point, float(each.min())), max(point, float(each.max())))
    drawn = np.concatenate(list(map(_resampled, tasks, _draws(tuple(t.shape for t in tasks), draws, seed))), axis=1)
    ends = np.quantile(trim_mean(drawn, QUARTER, axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = point + (ends - point) * (seeds / (seeds - 1)) ** 0.5
    return Interval(point, float(low), float(high))


def _resampled(task: Array, drawn: tuple[Array, NDArray[np.int64]]) -> Array:
    # Uplifts [draw, seed] of seeds drawn anew, each over one draw of images.
    weights, seeds = drawn
    return np.take_along_axis(weights @ task.T, seeds, axis=1)


@lru_cache(maxsize=4)
def _draws(shapes: tuple[tuple[int, ...], ...], draws: int, seed: int) -> tuple[tuple[Array, NDArray[np.int64]], ...]:
    """Return weights of images [draw, image] and seeds [draw, seed] of every task, the same for all rows of a board."""
    random = np.random.default_rng(seed)
    return tuple(
        (
            random.multinomial(images, np.full(images, 1 / images), size=draws) / images,
            random.integers(0, seeds, size=(draws, seeds)),
        )
        for seeds, images in shapes
    )


def _pairs(results: Results, suite: Suite) -> dict[Key, list[Pair]]:
    found: dict[Key, list[Pair]] = {}
    for standing in studied(results, suite).standings:
        pair = _pair(standing)
        if pair is not None:
            key = (standing.field.track, standing.release.label, standing.row.mask)
            found.setdefault(key, []).append(pair)
    return found


def _pair(standing: Standing) -> Pair | None:
    ours, none = standing.judging, standing.field.unprotected(standing.row)
    if none is None or not (ours.known and none.known):
        return None
    seeds = [s for s in ours.seeds if s in none.seeds]
    return Pair(_uplifts(ours, seeds), _uplifts(none, seeds)) if seeds else None


def _uplifts(found: Gain, seeds: Sequence[int]) -> Array:
    return np.asarray(np.tensordot(found.weights, found.at(seeds)[0], axes=1))
