"""How well two scores of models that make images agree: the score after attacks, and the distance of what they make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from scipy.stats import norm, spearmanr

from ntbench.measure.intervals import LEVEL, UNKNOWN, Interval
from ntbench.types import Result, columns_of

PLACE = ("task", "track", "defense", "attack", "mask", "samples")
COLUMNS = (*PLACE, "seeds", "score", "frechet")
FEWEST = 4
"""Points of which a correlation has an interval."""


def agreement_table(results: Iterable[Result]) -> pd.DataFrame:
    """Return one row per attack on a release with so many samples whose last models made images, at most.

    `score` is the mean over seeds at the end of the run, `frechet` the geometric mean of the Frechet distances from the
    target.
    """
    there = columns_of(results).where("frechet", lambda far: far is not None and far > 0)
    cells = [(result.cell, result.track, result.trajectory.test[-1], result.frechet) for result in there]
    rows = [
        (c.task.name, track, c.defense.label, c.attack.label, c.mask, c.samples, c.seed, score, np.log(far))
        for c, track, score, far in cells
        if far is not None
    ]
    table = pd.DataFrame(rows, columns=[*PLACE, "seeds", "score", "frechet"])
    means = {"seeds": "nunique", "score": "mean", "frechet": "mean"}
    found = table.groupby([*PLACE], sort=False, as_index=False).agg(means)
    return found.assign(frechet=np.exp(found["frechet"].astype(float)))[[*COLUMNS]]


def at_equal_samples(points: pd.DataFrame) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield the sample counts of four points and more, rising, with their points.

    More samples make scores and images better at once; over several counts that alone would pass for agreement.
    """
    for samples in sorted(set(points["samples"])):
        part = points[points["samples"] == samples]
        if len(part) >= FEWEST:
            yield int(samples), part


def agreement(points: pd.DataFrame) -> Interval:
    """Return Spearman's rank correlation of score and distance with its interval, points taken as independent.

    Of Fisher's z, whose variance is (1 + rho^2 / 2) / (n - 3) for ranks (Bonett and Wright 2000). Unknown for under
    four points, and where either score is the same everywhere.
    """
    if len(points) < FEWEST or min(points[name].nunique() for name in ("score", "frechet")) < 2:
        return UNKNOWN
    rho = float(spearmanr(points["score"], points["frechet"]).statistic)
    width = norm.ppf((1 + LEVEL) / 2) * np.sqrt((1 + rho**2 / 2) / (len(points) - 3))
    # A perfect correlation lies at infinity, and so do its ends.
    with np.errstate(divide="ignore"):
        low, high = np.tanh(np.arctanh(np.clip(rho, -1, 1)) + np.array([-width, width]))
    return Interval(rho, float(low), float(high))
