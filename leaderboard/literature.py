"""Numbers that others have published, to be read beside ours."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from ntbench.measure.metrics import log_range
from ntbench.report.display import number
from ntbench.types import Recipe


class Number(Recipe):
    """SLC-AUC of one defense by task, the log range of its curves, its setting, and why ours may lie elsewhere."""

    suite: str
    defense: str
    slc: dict[str, float]
    range: float
    setting: str
    distance: str


def numbers() -> list[Number]:
    """Return what is known from the literature."""
    text = resources.files("ntbench.leaderboard").joinpath("literature.toml").read_text(encoding="utf-8")
    return [Number.model_validate(entry) for entry in tomllib.loads(text)["numbers"]]


def beside(
    suite: str, task: str, rows: Sequence[Mapping[str, Any]], ratios: Sequence[float]
) -> Iterator[dict[str, str]]:
    """Yield one line of texts per published number that belongs to rows of a task; areas are divided by their range."""
    for known in numbers():
        mine = [row for row in rows if row["defense"] == known.defense and row["paper_attack"]]
        if known.suite == suite and task in known.slc and mine:
            yield {
                "defense": known.defense,
                "published": number(known.slc[task], signed=True),
                "published_mean": number(known.slc[task] / known.range, signed=True),
                "ours": number(mine[0]["paper_slc"], signed=True),
                "ours_mean": number(mine[0]["paper_slc"] / log_range(ratios), signed=True),
                "worst_mean": number(mine[0]["slc"] / log_range(ratios), signed=True),
                "setting": known.setting,
                "distance": known.distance,
            }
