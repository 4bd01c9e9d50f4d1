"""Verdicts: whether a row holds, leaks, stays open, or has none, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, isnan, nan
from types import MappingProxyType
from typing import Any, NamedTuple

from ntbench.measure.gates import Failure, in_words
from ntbench.measure.intervals import SEEDS_FOR_AN_INTERVAL, Interval

MOST_LEAK = 0.1
MOST_SPEEDUP = 1.25


class Lost(NamedTuple):
    """Of a row that lost its source: what the defense said, the best source accuracy, and values that would keep it."""

    said: str = ""
    best: float = nan
    kept: Mapping[str, Any] = MappingProxyType({})

    @property
    def remedy(self) -> str:
        """Return in words what keeps the source."""
        if not self.kept:
            return "tune the defense on its own validation data"
        return f"a trial kept it with {', '.join(f'{name} = {value}' for name, value in self.kept.items())}"


class Numbers(NamedTuple):
    """What a verdict rests on; `lost` says what became of a release that lost its source, and what keeps it."""

    leak: Interval
    speedup: Interval
    drop: Interval
    seeds: int
    lost: Lost = Lost()


def verdict(numbers: Numbers, failures: Sequence[Failure], max_drop: float) -> tuple[str, str]:
    """Return `holds`, `leaks`, `open` or `none` with the reason in words.

    `none` where a gate fails or the source is lost. It holds if the upper ends of leak, speed-up and drop stay within
    their limits, and leaks if a lower end of the first two is above its own.
    """
    if numbers.lost.said:
        return "none", f"unusable: {numbers.lost.said}; {numbers.lost.remedy}"
    if numbers.drop.low > max_drop:
        return "none", _lost(numbers, max_drop)
    if failures:
        return "none", in_words(failures)
    if numbers.seeds < SEEDS_FOR_AN_INTERVAL:
        return "open", f"fewer than five seeds ({numbers.seeds}); run {SEEDS_FOR_AN_INTERVAL - numbers.seeds} more"
    if over := _over(numbers):
        return "leaks", over
    undecided = [words for within, words in _limits(numbers, max_drop) if not within]
    return ("open", "; ".join(undecided)) if undecided else ("holds", "")


def _lost(numbers: Numbers, max_drop: float) -> str:
    drop, best = numbers.drop, numbers.lost.best
    left = "" if isnan(best) else f", to {100 * best:.1f}% at best"
    return (
        f"unusable: source accuracy drops by {100 * drop.point:.1f} points ({_ends(drop, 100, 1)}), above "
        f"{100 * max_drop:g}{left}; {numbers.lost.remedy}"
    )


def _over(numbers: Numbers) -> str:
    found = []
    if numbers.leak.low > MOST_LEAK:
        found.append(f"the leak is above {MOST_LEAK} ({_ends(numbers.leak)})")
    if numbers.speedup.low > MOST_SPEEDUP:
        found.append(f"the speed-up is above {MOST_SPEEDUP} ({_ends(numbers.speedup)})")
    return "; ".join(found)


def _limits(numbers: Numbers, max_drop: float) -> list[tuple[bool, str]]:
    drop = f"the source drop spans {100 * max_drop:g} points ({_ends(numbers.drop, 100, 1)})"
    return [
        (numbers.leak.high <= MOST_LEAK, _spans("leak", numbers.leak, MOST_LEAK)),
        (numbers.speedup.high <= MOST_SPEEDUP, _spans("speed-up", numbers.speedup, MOST_SPEEDUP)),
        (numbers.drop.high <= max_drop, f"{drop}; more seeds or source test images would decide"),
    ]


def _spans(name: str, found: Interval, limit: float) -> str:
    if not isfinite(found.high):
        missing = "interval" if isnan(found.high) else "upper end"
        return f"the {name} has no {missing}; a longer horizon or more seeds would give one"
    return f"the interval of the {name} ({_ends(found)}) spans {limit}; more seeds or test images would decide"


def _ends(found: Interval, scale: float = 1, digits: int = 2) -> str:
    return f"{scale * found.low:.{digits}f} to {scale * found.high:.{digits}f}"
