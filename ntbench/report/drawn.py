"""What models make, to be judged by eye: images of the source from every release, and of the target after an attack."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from ntbench.report.display import MISSING, Record, number, records, text
from ntbench.report.style import WIDE, Drawn, label
from ntbench.types import NONE

HEIGHT = 1.25  # inches of a panel


def drawn_figure(rows: Sequence[Record], drawn: pd.DataFrame, task: str, width: float = WIDE) -> Figure | None:
    """Draw two panels a row, the undefended release first, one below the other where it is narrow.

    None where models make no images.
    """
    shown = _shown(rows, drawn, task)
    if not shown:
        return None
    across = 2 if width >= WIDE else 1
    figure = Drawn(figsize=(width, 2 / across * HEIGHT * len(shown)), layout="constrained")
    panels = figure.subplots(2 * len(shown) // across, across, squeeze=False).reshape(-1, 2)
    for (left, right), (row, source, target) in zip(panels, shown, strict=True):
        _panel(left, source["source"], f"{label(row, 22)}, source: {_distance(row)}")
        if target is not None:
            _panel(right, target["target"], f"target, after {text(row, 'attack')}, {target['samples']} samples")
        right.axis("off")
    return figure


def drawn_data(rows: Sequence[Record], drawn: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return what `drawn_figure` shows, images as base64 of PNG files."""
    names = ("attack", "samples", "target")
    return pd.DataFrame(
        [
            {
                "defense": row["defense"],
                "seed": source["seed"],
                "frechet": row.get("frechet"),
                "source": source["source"],
            }
            | {name: target and target[name] for name in names}
            for row, source, target in _shown(rows, drawn, task)
        ]
    )


def _shown(
    rows: Sequence[Record], drawn: pd.DataFrame, task: str
) -> list[tuple[Record, dict[str, Any], dict[str, Any] | None]]:
    """Return the rows with whose images they are: the release of the first seed, and the strongest attack on it."""
    drawn = drawn[drawn["task"] == task]
    shown = [row for row in rows if row["mask"] == "dense" and row["defense"] in set(drawn["defense"])]
    found = []
    for row in sorted(shown, key=lambda row: row["defense"] != NONE):
        own = drawn[drawn["defense"] == row["defense"]]
        first = own[own["seed"] == own["seed"].min()]
        taken = first[first["attack"] == row["attack"]].sort_values("samples", kind="stable")
        found.append((row, records(first)[0], records(taken)[-1] if len(taken) else None))
    return found


def _distance(row: Record) -> str:
    found = number(row.get("frechet"), 1)
    return "no distance" if found == MISSING else f"Frechet distance {found}"


def _panel(axes: Axes, png: str, title: str) -> None:
    axes.imshow(imread(io.BytesIO(base64.b64decode(png)), format="png"), cmap="gray", vmin=0, vmax=1)
    axes.set_title(title, loc="left", pad=3)
    axes.axis("off")
