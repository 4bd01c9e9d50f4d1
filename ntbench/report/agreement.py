"""How well the score of models that make images agrees with the distance of what they make: a figure, and its data."""

from __future__ import annotations

from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ntbench.measure.agreement import FEWEST, agreement
from ntbench.report.display import records
from ntbench.report.sentences import correlation
from ntbench.report.style import NARROW, SOFT, WIDE, Drawn, bare, label

HEIGHT = 2.6  # inches
MARKERS = "osD^vPX*<>"


def agreement_figure(points: pd.DataFrame, width: float = WIDE) -> Figure | None:
    """Draw the score of every attack on every release over the distance, on a logarithmic axis; None for few points."""
    if len(points) < FEWEST:
        return None
    figure = Drawn(figsize=(width, HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    groups = points.groupby(["defense", "mask"], sort=False)
    for k, (colour, (_, part)) in enumerate(zip(sns.color_palette("colorblind", len(groups)), groups, strict=True)):
        name = label(records(part)[0], 22)
        style: dict[str, Any] = {
            "color": colour,
            "marker": MARKERS[k % len(MARKERS)],
            "markersize": 3.5,
            "linestyle": "",
        }
        axes.plot(part["frechet"], part["score"], label=name, **style)
    axes.set_xscale("log")
    # Powers of ten are formulas to matplotlib, and this style has none.
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("Frechet distance from the target")
    axes.set_ylabel("score at the end")
    axes.set_title(correlation(points), loc="left", pad=3, color=SOFT)
    bare(axes)
    columns = 2 if width <= NARROW else 4
    figure.legend(loc="outside upper center", ncols=min(len(groups), columns), frameon=False)
    return figure


def agreement_data(points: pd.DataFrame) -> pd.DataFrame:
    """Return what `agreement_figure` draws, with the correlation of all points beside each of them."""
    found = agreement(points)
    return points.assign(spearman=found.point, spearman_low=found.low, spearman_high=found.high)
