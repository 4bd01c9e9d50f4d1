"""What protecting did to the source and cost: the drop of source accuracy with its interval, and means over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from ntbench.measure.areas import Array
from ntbench.measure.curves import Curves
from ntbench.measure.intervals import UNKNOWN, Interval, mean_interval
from ntbench.types import Protection, unpack_scores

MEANS = (
    *("source_before", "source_after", "zero_shot", "sparsity", "protect_steps", "protect_seconds", "protect_flops"),
    *("natural_before", "natural"),
)


@dataclass(frozen=True)
class Effect:
    """A release's effect on its source, and means over seeds of what stands in its protections.

    `lost` is what a defense says that could release nothing which keeps the source; `best` is the best source accuracy
    of a release over seeds.
    """

    drop: Interval
    needs: str
    means: dict[str, float]
    seconds_ratio: float
    lost: str
    best: float


def effect(curves: Curves, release: int) -> Effect:
    """Return what protecting a release did and cost; NaN for what nobody recorded."""
    found = [p for (r, _), p in sorted(curves.protections.items()) if r == release]
    spent, base = (_total(found, f"{name}_seconds") for name in ("protect", "pretrain"))
    return Effect(
        drop=source_drop(found, curves.source_images),
        needs=next((p.needs for p in found if p.needs), ""),
        means={name: _mean(found, name) for name in MEANS} | distances(found),
        seconds_ratio=spent / base if base > 0 else np.nan,
        lost=next((p.error for p in found if p.status == "unusable"), ""),
        best=float(max(_values(found, "source_after"), default=np.nan)),
    )


def distances(found: Sequence[Protection]) -> dict[str, float]:
    """Return how far images lie from the source's, before protection and after, and the spread between seeds of noise.

    Each is a mean over releases: of the mean over seeds of noise, and of the standard deviation between them.
    """
    told = {}
    for kind, when in product(("frechet", "kid"), ("_before", "")):
        each = [np.array(noises) for p in found if (noises := getattr(p, f"{kind}s{when}"))]
        if each:
            told[f"{kind}{when}"] = float(np.mean([noises.mean() for noises in each]))
            told[f"{kind}{when}_spread"] = float(np.mean([noises.std(ddof=1) for noises in each]))
    return told


def source_drop(found: Sequence[Protection], images: int) -> Interval:
    """Return the accuracy that protection costs on source, paired by seed and by image where images are known."""
    pairs = [(p.source_before, p.source_after) for p in found]
    if not pairs or any(before is None or after is None for before, after in pairs):
        return UNKNOWN
    drops = np.array([[float(before or 0) - float(after or 0)] for before, after in pairs])
    if not (images and all(p.clean and p.kept for p in found)):
        return mean_interval(drops)
    each = np.array([_lost(p, images) for p in found])
    return mean_interval(each + drops - each.mean(axis=1, keepdims=True))


def _lost(found: Protection, images: int) -> Array:
    before, after = (unpack_scores(text, images) for text in (found.clean, found.kept))
    return before - after


def _values(found: Sequence[Protection], name: str) -> Array:
    values = [getattr(p, name) for p in found]
    return np.array([value for value in values if value is not None], dtype=np.float64)


def _mean(found: Sequence[Protection], name: str) -> float:
    values = _values(found, name)
    return float(values.mean()) if values.size else np.nan


def _total(found: Sequence[Protection], name: str) -> float:
    return float(_values(found, name).sum())
