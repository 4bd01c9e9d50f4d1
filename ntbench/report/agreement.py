"""How well the score of models that make images agrees with the distance of what they make: a figure, and its data."""

from __future__ import annotations

from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ntbench.measure.agreement import agreement, at_equal_samples
from ntbench.report.display import count, records
from ntbench.report.sentences import correlation
from ntbench.report.style import NARROW, SOFT, WIDE, Drawn, bare, label

HEIGHT = 2.4  # inches of a panel
MARKERS = "osD^vPX*<>"


def agreement_figure(points: pd.DataFrame, width: float = WIDE) -> Figure | None:
    """Draw scores of attacks on releases over distances, a panel for each sample count; None for few points."""
    counts = list(at_equal_samples(points))
    if not counts:
        return None
    across = 1 if width <= NARROW else min(len(counts), 2)
    down = -(-len(counts) // across)
    figure = Drawn(figsize=(width, HEIGHT * down + 0.3), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    styles = _styles(points)
    for axes, (samples, part) in zip(panels, counts, strict=False):
        _panel(axes, part, styles)
        axes.set_title(f"{count(samples)} samples: {correlation(part)}", loc="left", pad=3, color=SOFT)
    for axes in panels[len(counts) :]:
        axes.set_axis_off()
    columns = 2 if width <= NARROW else 4
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=columns, frameon=False)
    return figure


def _styles(points: pd.DataFrame) -> dict[tuple[str, str], dict[str, Any]]:
    """Return colour, mark and label of every row, the same in all panels."""
    rows = records(points.drop_duplicates(["defense", "mask"]))
    colours = sns.color_palette("colorblind", len(rows))
    return {
        (row["defense"], row["mask"]): {
            "color": colour,
            "marker": MARKERS[k % len(MARKERS)],
            "label": label(row, 22),
        }
        for k, (colour, row) in enumerate(zip(colours, rows, strict=True))
    }


def _panel(axes: Axes, points: pd.DataFrame, styles: dict[tuple[str, str], dict[str, Any]]) -> None:
    for (defense, mask), style in styles.items():
        part = points[(points["defense"] == defense) & (points["mask"] == mask)]
        axes.plot(part["frechet"], part["score"], markersize=3.5, linestyle="", **style)
    axes.set_xscale("log")
    # Powers of ten are formulas to matplotlib, and this style has none.
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("Frechet distance from the target")
    axes.set_ylabel("score at the end")
    bare(axes)


def agreement_data(points: pd.DataFrame) -> pd.DataFrame:
    """Return what `agreement_figure` draws, with the correlation of its panel beside each point."""
    names = ["spearman", "spearman_low", "spearman_high"]
    panels = (part.assign(**dict(zip(names, agreement(part), strict=True))) for _, part in at_equal_samples(points))
    return pd.concat(panels)
