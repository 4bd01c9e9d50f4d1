"""What models make, to be judged by eye: images of the source from every release, and of the target after an attack."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from ntbench.report.display import MISSING, Record, number, text
from ntbench.report.style import WIDE, Drawn, label
from ntbench.types import NONE

HEIGHT = 1.25  # inches of a row


def drawn_figure(rows: Sequence[Record], drawn: pd.DataFrame, task: str) -> Figure | None:
    """Draw a line a row, the undefended release first; None where models make no images."""
    drawn = drawn[drawn["task"] == task]
    shown = [row for row in rows if row["mask"] == "dense" and row["defense"] in set(drawn["defense"])]
    if not shown:
        return None
    shown.sort(key=lambda row: row["defense"] != NONE)
    figure = Drawn(figsize=(WIDE, HEIGHT * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 2, squeeze=False)
    for (left, right), row in zip(panels, shown, strict=True):
        own = drawn[drawn["defense"] == row["defense"]]
        first = own[own["seed"] == own["seed"].min()]
        taken = first[first["attack"] == row["attack"]]
        _panel(left, first["source"].iloc[0], f"{label(row, 22)}, source: {_distance(row)}")
        if len(taken):
            last = taken.loc[taken["samples"].idxmax()]
            _panel(right, last["target"], f"target, after {text(row, 'attack')}, {last['samples']} samples")
        right.axis("off")
    return figure


def _distance(row: Record) -> str:
    found = number(row.get("frechet"), 1)
    return "no distance" if found == MISSING else f"Frechet distance {found}"


def _panel(axes: Axes, png: str, title: str) -> None:
    axes.imshow(imread(io.BytesIO(base64.b64decode(png)), format="png"), cmap="gray", vmin=0, vmax=1)
    axes.set_title(title, loc="left", pad=3)
    axes.axis("off")
