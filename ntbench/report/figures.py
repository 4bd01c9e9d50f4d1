"""Figures of one task: learning curves, overhead curves, the heat map of attacks, and intactness against worst case."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ntbench.report.display import number, row_name
from ntbench.report.panels import (
    WIDTH,
    WORSE,
    Row,
    colours,
    envelopes,
    learning_curves_figure,
    overhead_figure,
    records,
)

MAX_DROP = 2.0  # percentage points
DPI = 200
STYLE = {
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.4,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
}


def task_figures(
    board: pd.DataFrame, curves: pd.DataFrame, trajectories: pd.DataFrame, heat: pd.DataFrame, selection: str
) -> dict[str, Figure]:
    """Return the figures of one task by file stem, from its part of the tables; `trajectories` of `ok` cells only.

    A figure that has nothing to show is left out.
    """
    style: Any = {**sns.axes_style("ticks"), **STYLE}
    with matplotlib.rc_context(style):
        figures = {
            "learning_curves": learning_curves_figure(board, curves),
            "overhead_curves": overhead_figure(board, envelopes(trajectories, selection)),
            "attack_heatmap": heatmap_figure(board, heat),
            "intactness": intactness_figure(board),
        }
    return {name: figure for name, figure in figures.items() if figure is not None}


def save(figure: Figure, stem: Path) -> bytes:
    """Write a figure as STEM.pdf and STEM.png, and return the bytes of the latter."""
    # The layout is the same for both formats, and costs more than drawing.
    figure.set_dpi(DPI)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    # Conferences refuse the default, Type 3 fonts.
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(stem.with_name(f"{stem.name}.pdf"))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    stem.with_name(f"{stem.name}.png").write_bytes(buffer.getvalue())
    return buffer.getvalue()


def heatmap_figure(board: pd.DataFrame, heat: pd.DataFrame) -> Figure | None:
    """Draw SLC-AUC against tuned scratch of every attack on every row, the paper's attack framed."""
    rows = [row for row in records(board) if row["defense"] in set(heat["defense"])]
    attacks = list(dict.fromkeys(heat["attack"]))
    table = heat.pivot(index="attack", columns=["defense", "mask"], values="slc").astype(float)
    table = table.reindex(index=attacks, columns=pd.MultiIndex.from_tuples([(r["defense"], r["mask"]) for r in rows]))
    table.loc["worst case"] = [float(row["slc"]) for row in rows]
    if not np.isfinite(table.to_numpy()).any():
        return None
    limit = max(float(np.nanmax(np.abs(table.to_numpy()))), 1e-6)
    figure = Figure(figsize=(WIDTH, 1.6 + 0.24 * len(table)), layout="constrained")
    axes = figure.add_subplot()
    names = [row_name(row["defense"], row["mask"]) for row in rows]
    sns.heatmap(
        table.set_axis(names, axis=1),
        ax=axes,
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        annot=np.array([[number(value, signed=True) for value in line] for line in table.to_numpy()]),
        fmt="",
        annot_kws={"size": 7},
        linewidths=0.4,
        cbar_kws={"label": "SLC-AUC, nats", "shrink": 0.9},
    )
    axes.axhline(len(attacks), color="white", linewidth=3)
    axes.set_facecolor("0.9")
    for x, row in enumerate(rows):
        if row["paper_attack"] in attacks and row["paper_mask"] == row["mask"]:
            y = attacks.index(row["paper_attack"])
            axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor="black", linewidth=1.3, clip_on=False))
    axes.set(xlabel="", ylabel="")
    axes.set_xticklabels(names, rotation=35, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_yticklabels(table.index, rotation=0, parse_math=False)
    return figure


def intactness_figure(board: pd.DataFrame) -> Figure | None:
    """Draw worst-case SLC-AUC against the loss of source accuracy, with the names in the margin."""
    rows = [r for r in records(board) if r["defense"] != "scratch" and np.isfinite(float(r["slc"]) + float(r["drop"]))]
    if not rows:
        return None
    figure, palette = (
        Figure(figsize=(WIDTH, max(0.45 * WIDTH, 0.8 + 0.13 * len(rows))), layout="constrained"),
        colours(board),
    )
    axes = figure.add_subplot()
    for row in rows:
        x, y = 100 * row["drop"], row["slc"]
        ends = np.array([[100 * row["drop_low"], 100 * row["drop_high"]], [row["slc_low"], row["slc_high"]]], float)
        style = {"color": palette[row["defense"]], "linewidth": 0.8, "zorder": 2}
        axes.plot(ends[0], [y, y], **style)
        axes.plot([x, x], ends[1], **style)
        face = "white" if row["mask"] == "keep" else palette[row["defense"]]
        axes.plot(x, y, "o", markersize=5, markerfacecolor=face, markeredgecolor=palette[row["defense"]], zorder=3)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.axvline(MAX_DROP, color="black", linewidth=0.6, linestyle=":")
    axes.set_xlim(right=max(axes.get_xlim()[1], 1.15 * MAX_DROP))
    low = min(axes.get_ylim()[0], -0.1)
    axes.set_ylim(bottom=low)
    left = axes.get_xlim()[0]
    axes.add_patch(Rectangle((left, low), MAX_DROP - left, -low, color=WORSE, alpha=0.08, linewidth=0, zorder=0))
    axes.set(xlabel="drop in source test accuracy, percentage points", ylabel="worst-case SLC-AUC, nats")
    axes.set_xlim(left=left)
    _margin_labels(axes, rows, palette)
    sns.despine(ax=axes)
    return figure


def _margin_labels(axes: Axes, rows: Sequence[Row], palette: dict[str, Any]) -> None:
    low, high = axes.get_ylim()
    gap, ordered = (high - low) / max(22, len(rows)), sorted(rows, key=lambda row: float(row["slc"]))
    heights = _apart([float(row["slc"]) for row in ordered], gap, low + gap / 2, high - gap / 2)
    for row, height in zip(ordered, heights, strict=True):
        axes.annotate(
            row_name(row["defense"], row["mask"]),
            xy=(100 * row["drop"], row["slc"]),
            xytext=(1.04, height),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            annotation_clip=False,
            fontsize=7,
            arrowprops={
                "arrowstyle": "-",
                "linewidth": 0.6,
                "color": palette[row["defense"]],
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
            parse_math=False,
        )


def _apart(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    # Rising values pushed up until neighbours are a gap apart, then down again from the top.
    gap = min(gap, (high - low) / max(len(values) - 1, 1))
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] + gap if places else low))
    ceiling = high
    for i in reversed(range(len(places))):
        places[i] = min(places[i], ceiling)
        ceiling = places[i] - gap
    return places
