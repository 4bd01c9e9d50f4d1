"""Numbers that others have published, to be read beside ours."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from ntbench.measure.areas import log_range
from ntbench.report.display import number, percent
from ntbench.suite import Suite
from ntbench.types import Recipe, Task


class Number(Recipe):
    """SLC-AUC of one defense by task as published, the log range of its curves, its network and its setting."""

    defense: str
    arch: str
    slc: dict[str, float]
    range: float
    setting: str


def numbers() -> list[Number]:
    """Return what is known from the literature."""
    text = resources.files("ntbench.leaderboard").joinpath("literature.toml").read_text(encoding="utf-8")
    return [Number.model_validate(entry) for entry in tomllib.loads(text)["numbers"]]


def beside(suite: Suite, task: Task, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """Yield one line of texts per published number that belongs to rows of a task.

    On the paper's data and network ours is `reproduced`, on another network `transposed`. In brackets areas are divided
    by their log range: a mean difference of accuracy, in points.
    """
    counts = [level.samples for level in task.levels]
    for known in numbers():
        slc = known.slc.get(f"{task.source}-{task.target}")
        mine = [row for row in rows if row["defense"] == known.defense and row["paper_slc"] == row["paper_slc"]]
        if slc is not None and mine:
            yield {
                "defense": known.defense,
                "published": _area(slc, known.range),
                "ours": _area(mine[0]["paper_slc"], log_range(counts)),
                "strongest": _area(mine[0]["slc"], log_range(counts)),
                "kind": "reproduced" if known.arch == suite.arch.name else "transposed",
                "setting": known.setting,
            }


def _area(slc: float, span: float) -> str:
    return f"{number(slc, signed=True)} ({percent(slc / span, signed=True)})"
