"""The picture that comes first: leak with its interval, a line a row, between scratch at 0 and no protection at 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ntbench.report.display import MISSING, Record, number, verdict, with_interval, yes
from ntbench.report.style import INK, NARROW, VERDICTS, WIDE, bare, canvas, label, marker

LIMIT = 0.1  # the largest upper end of a leak that holds
LEAK = "leak: what a release still adds for an attacker, as a share of what the unprotected one adds"
REACH = (-0.35, 1.5)  # what lies beyond is an arrow


def ranking_figure(rows: Sequence[Record], width: float = WIDE, axes: Axes | None = None) -> Figure | None:
    """Draw the leak of every row of a ranked track, the least at the top; None where no row has one.

    On given axes, or in a figure of its own.
    """
    known = _known(rows)
    if not known:
        return None
    narrow, own = width <= NARROW, axes is None
    figure, axes = canvas(width, 0.75 + 0.17 * len(known), axes)
    low, high = _reach(known)
    axes.set(xlim=(low, high), ylim=(len(known) - 0.4, -0.6), xlabel="leak" if narrow else LEAK)
    ticks = [tick / 10 for tick in range(-2, 16, 2) if low <= tick / 10 <= high]
    axes.set_xticks(ticks, [number(tick, 1) for tick in ticks])
    _ends(axes)
    for place, row in enumerate(known):
        _line(axes, row, place, low, high)
        said = number(row["leak"]) if narrow else f"{with_interval(row, 'leak', signed=False)}  {_said(row)}"
        x, transform = 1.02, axes.get_yaxis_transform()
        axes.text(x, place, said, transform=transform, va="center", fontsize=6.5 if narrow else 7, color=marker(row)[0])
    axes.set_yticks(range(len(known)), [label(row, 18 if narrow else 32) for row in known])
    bare(axes, "x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    if narrow and own:
        _legend(figure, known)
    return figure


def ranking_data(rows: Sequence[Record]) -> pd.DataFrame:
    """Return what `ranking_figure` draws, a line a row from the top."""
    return pd.DataFrame(_known(rows), columns=["defense", "mask", "verdict", "leak", "leak_low", "leak_high"])


def _known(rows: Sequence[Record]) -> list[Record]:
    return [row for row in rows if not yes(row, "baseline") and np.isfinite(float(row["leak"]))]


def _reach(rows: Sequence[Record]) -> tuple[float, float]:
    ends = np.array([[row["leak"], row["leak_low"], row["leak_high"]] for row in rows], dtype=float)
    ends = ends[np.isfinite(ends)]
    return max(REACH[0], min(-0.08, float(ends.min()) - 0.04)), min(REACH[1], max(1.08, float(ends.max()) + 0.04))


def _ends(axes: Axes) -> None:
    for x, name in ((0.0, "scratch"), (1.0, "none")):
        axes.axvline(x, color=INK, linewidth=0.9, zorder=1)
        axes.annotate(name, (x, 1), (0, 3), axes.get_xaxis_transform(), "offset points", ha="center", fontsize=7)
    axes.axvspan(axes.get_xlim()[0], LIMIT, color=VERDICTS["holds"][0], alpha=0.08, linewidth=0, zorder=0)


def _line(axes: Axes, row: Record, place: int, low: float, high: float) -> None:
    colour, sign = marker(row)
    ends = [float(row["leak_low"]), float(row["leak_high"])]
    if not np.isnan(ends).any():
        left, right = np.clip(ends, low, high)
        axes.plot([left, right], [place, place], color=colour, linewidth=1.3, solid_capstyle="butt", zorder=2)
        for end, edge, arrow in ((ends[0], low, "<"), (ends[1], high, ">")):
            if (end < edge) if arrow == "<" else (end > edge):
                axes.plot(edge, place, arrow, color=colour, markersize=4, clip_on=False, zorder=3)
    value = float(row["leak"])
    if low <= value <= high:
        size = 4.5 if sign == "x" else 4
        axes.plot(value, place, sign, color=colour, markersize=size, markerfacecolor=_face(row, colour), zorder=4)


def _said(row: Record) -> str:
    return "not ranked" if verdict(row) == MISSING else verdict(row)


def _face(row: Record, colour: str) -> str:
    return "white" if row.get("mask") == "keep" or yes(row, "control") else colour


def _legend(figure: Figure, rows: Sequence[Record]) -> None:
    there = {_said(row): marker(row) for row in rows}
    handles = [
        Line2D([], [], color=colour, marker=sign, markersize=4, linestyle="", label=said)
        for said, (colour, sign) in there.items()
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=4, frameon=False, handletextpad=0.1, columnspacing=0.8
    )
