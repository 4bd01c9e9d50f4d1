"""Ranks by leak, with the places that pairwise intervals leave open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ntbench.measure.choice import TOLERANCE
from ntbench.measure.gains import Gain, weighted
from ntbench.measure.intervals import SEEDS_FOR_AN_INTERVAL
from ntbench.measure.standing import Standing


class Rank(NamedTuple):
    """A place, 1 for the least leak, and the best and worst place that the data leave open."""

    rank: int | None = None
    low: int | None = None
    high: int | None = None


def by_leak(leak: float, high: float) -> tuple[bool, float, float]:
    """Return a key that sorts by leak, those below 0 as 0 and unknown ones last; of equals the surer comes first."""
    return (True, 0.0, 0.0) if np.isnan(leak) else (False, max(leak, 0.0), np.inf if np.isnan(high) else high)


def ranks(standings: Sequence[Standing]) -> dict[Standing, Rank]:
    """Return the ranks of rows that keep their source and have a leak; equals share the better place.

    Worse than the baseline is no extra protection: a leak below 0 is a mistake of the attacker and ranks as 0.
    The best place that stays open is one behind all rows that are surely better, with an interval of their paired
    difference in uplift below 0; the worst is before all that are surely worse. Open under five seeds.
    """
    able = [s for s in standings if s.ranked and s.usable and np.isfinite(s.leak.point)]
    leaks = np.array([max(s.leak.point, 0.0) for s in able])
    found: dict[Standing, Rank] = {}
    for standing, leak in zip(able, leaks, strict=True):
        place = 1 + int((leaks < leak - TOLERANCE).sum())
        signs = [_sign(other.judging, standing.judging) for other in able]
        if None in signs:
            found[standing] = Rank(place)
            continue
        found[standing] = Rank(place, min(place, 1 + signs.count(-1)), max(place, len(able) - signs.count(1)))
    return found


def _sign(ours: Gain, theirs: Gain) -> int | None:
    # -1 where the first surely adds less than the second, 1 where more, 0 where nobody knows.
    seeds = [s for s in ours.seeds if s in theirs.seeds]
    if len(seeds) < SEEDS_FOR_AN_INTERVAL:
        return None
    found = weighted(ours.at(seeds)[0] - theirs.at(seeds)[0], ours.weights)
    return -1 if found.high < 0 else 1 if found.low > 0 else 0
