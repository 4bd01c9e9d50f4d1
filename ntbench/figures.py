"""Figures of one task: learning curves, overhead curves, the heat map of attacks, and intactness against worst case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from ntbench.display import number, ratio, row_name

WIDTH = 7.0  # inches: two columns of a paper
PANELS = 4
MAX_DROP = 2.0  # percentage points
QUANTILE = 0.9
WORSE, BETTER = "#2166ac", "#b2182b"  # the ends of the colour map RdBu: worse and better than scratch
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
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
}
Row = dict[str, Any]


def task_figures(
    board: pd.DataFrame, curves: pd.DataFrame, trajectories: pd.DataFrame, heat: pd.DataFrame, selection: str
) -> dict[str, Figure]:
    """Return the figures of one task by file stem, from its part of the tables; `trajectories` of `ok` cells only.

    A figure that has nothing to show is left out.
    """
    with sns.axes_style("ticks"), sns.plotting_context(STYLE):
        figures = {
            "learning_curves": learning_curves_figure(board, curves),
            "overhead_curves": overhead_figure(board, envelopes(trajectories, selection)),
            "attack_heatmap": heatmap_figure(board, heat),
            "intactness": intactness_figure(board),
        }
    return {name: figure for name, figure in figures.items() if figure is not None}


def colours(board: pd.DataFrame) -> dict[str, Any]:
    """Return one colour per defense: grey for controls, the colour-blind palette for the others, by label."""
    own = sorted(set(board.loc[~board["control"].astype(bool), "defense"]))
    palette = sns.color_palette("colorblind", max(len(own), 1))
    return {name: (0.45, 0.45, 0.45) for name in board["defense"]} | dict(zip(own, palette, strict=False))


def learning_curves_figure(board: pd.DataFrame, curves: pd.DataFrame) -> Figure | None:
    """Draw per row the worst-case and paper-setting learning curves against tuned scratch, the area between shaded."""
    curves = curves[np.isfinite(curves["worst"].astype(float) + curves["scratch"].astype(float))]
    rows = _rows(board, curves)
    if not rows:
        return None
    figure, palette = _panels(len(rows)), colours(board)
    for axes, row, part in zip(figure.axes, rows, _parts(rows, curves), strict=False):
        mean = part.groupby("samples")[["worst", "paper", "scratch"]].mean()
        _shade(axes, mean)
        colour = palette[row["defense"]]
        axes.plot(mean.index, mean["paper"], color=colour, linewidth=0.9, linestyle=(0, (1.5, 1.2)))
        for name, ink in (("scratch", "black"), ("worst", colour)):
            _spread(axes, part, "samples", name, ink)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _title(axes, row, f"SLC {number(row['slc'], signed=True)}", (0.04, 0.96))
    handles = [
        Line2D([], [], color="black", label="scratch, tuned"),
        Line2D([], [], color="dimgrey", marker="o", markersize=3, label="strongest attack (colour of the defense)"),
        Line2D([], [], color="dimgrey", linestyle=(0, (1.5, 1.2)), label="attack of the paper"),
        Patch(color=BETTER, alpha=0.25, linewidth=0, label="attacker gains"),
        Patch(color=WORSE, alpha=0.25, linewidth=0, label="attacker loses"),
    ]
    _finish(figure, "target training samples (log scale)", "target test accuracy", handles)
    return figure


def envelopes(trajectories: pd.DataFrame, selection: str) -> pd.DataFrame:
    """Return per row, step and seed the test accuracy of the best attack at that step, at the largest ratio.

    The attack has the best seed mean on the split that `selection` allows, among those with every seed.
    """
    last = trajectories[trajectories["ratio"] == trajectories["ratio"].max()]
    place = ["defense", "mask", "step", "attack"]
    wide = last.pivot_table(index=[*place, "seed"], columns="split", values="value").reset_index()
    if wide.empty:
        return pd.DataFrame(columns=[*place, "seed", "accuracy"])
    split = "val" if selection == "val" else "test"
    mean = wide.groupby(place)[split].agg(["mean", "count"]).reset_index()
    mean = mean[mean["count"] == wide["seed"].nunique()]
    best = mean.loc[mean.groupby(place[:-1])["mean"].idxmax(), place]
    paths: pd.DataFrame = best.merge(wide, on=place).rename(columns={"test": "accuracy"})
    return paths[[*place, "seed", "accuracy"]]


def overhead_figure(board: pd.DataFrame, paths: pd.DataFrame) -> Figure | None:
    """Draw per row the best accuracy over optimizer steps, from protected weights and from scratch."""
    scratch = paths[(paths["defense"] == "scratch") & (paths["mask"] == "dense")]
    rows = _rows(board, paths)
    if not rows or scratch.empty:
        return None
    figure, palette = _panels(len(rows)), colours(board)
    goal = QUANTILE * scratch.loc[scratch["step"] == scratch["step"].max(), "accuracy"].mean()
    for axes, row, part in zip(figure.axes, rows, _parts(rows, paths), strict=False):
        axes.axhline(goal, color="black", linewidth=0.6, linestyle=":")
        _spread(axes, scratch, "step", "accuracy", "black", band=True)
        _spread(axes, part, "step", "accuracy", palette[row["defense"]], band=True)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        text = ratio(row, "overhead_steps_90")
        _title(axes, row, "" if text == "-" else f"{text}x", (0.97, 0.05))
    handles = [
        Line2D([], [], color="black", label="scratch, tuned"),
        Line2D([], [], color="dimgrey", marker="o", markersize=3, label="protected weights (colour of the defense)"),
        Line2D([], [], color="black", linestyle=":", linewidth=0.8, label="90 % of scratch's final accuracy"),
    ]
    _finish(figure, "optimizer steps of the attack, at the largest sample ratio", "target test accuracy", handles)
    return figure


def heatmap_figure(board: pd.DataFrame, heat: pd.DataFrame) -> Figure | None:
    """Draw SLC-AUC against tuned scratch of every attack on every row, the paper's attack framed."""
    rows = [row for row in _records(board) if row["defense"] in set(heat["defense"])]
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
        cbar_kws={"label": "SLC-AUC against tuned scratch, nats", "shrink": 0.9},
    )
    axes.axhline(len(attacks), color="white", linewidth=3)
    axes.set_facecolor("0.9")
    for x, row in enumerate(rows):
        if row["paper_attack"] in attacks and row["paper_mask"] == row["mask"]:
            y = attacks.index(row["paper_attack"])
            axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor="black", linewidth=1.3, clip_on=False))
    axes.set(xlabel="", ylabel="")
    axes.set_xticklabels(names, rotation=35, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="y", rotation=0)
    return figure


def intactness_figure(board: pd.DataFrame) -> Figure | None:
    """Draw worst-case SLC-AUC against the loss of source accuracy, with the names in the margin."""
    rows = [r for r in _records(board) if r["defense"] != "scratch" and np.isfinite(float(r["slc"]) + float(r["drop"]))]
    if not rows:
        return None
    figure, palette = Figure(figsize=(0.75 * WIDTH, 0.5 * WIDTH), layout="constrained"), colours(board)
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
    gap, ordered = (high - low) / 22, sorted(rows, key=lambda row: float(row["slc"]))
    heights = _apart([float(row["slc"]) for row in ordered], gap, low + gap / 2, high - gap / 2)
    for row, height in zip(ordered, heights, strict=True):
        axes.annotate(
            row_name(row["defense"], row["mask"]),
            xy=(100 * row["drop"], row["slc"]),
            xytext=(1.04, height),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            annotation_clip=False,
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


def _records(board: pd.DataFrame) -> list[Row]:
    return [{str(name): value for name, value in row.items()} for row in board.to_dict("records")]


def _rows(board: pd.DataFrame, frame: pd.DataFrame) -> list[Row]:
    there = set(zip(frame["defense"], frame["mask"], strict=True))
    return [r for r in _records(board) if (r["defense"], r["mask"]) in there and r["defense"] != "scratch"]


def _parts(rows: Sequence[Row], frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for row in rows:
        yield frame[(frame["defense"] == row["defense"]) & (frame["mask"] == row["mask"])]


def _panels(count: int) -> Figure:
    columns = min(PANELS, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(WIDTH * columns / PANELS if columns > 2 else WIDTH / 2, 0.75 + 1.35 * lines))
    figure.set_layout_engine("constrained")
    first: Axes | None = None
    for i in range(count):
        axes = figure.add_subplot(lines, columns, i + 1, sharex=first, sharey=first)
        first = first or axes
        axes.tick_params(labelbottom=i + columns >= count, labelleft=i % columns == 0)
    return figure


def _shade(axes: Axes, mean: pd.DataFrame) -> None:
    worst, scratch = mean["worst"].to_numpy(float), mean["scratch"].to_numpy(float)
    for where, colour in ((worst >= scratch, BETTER), (worst <= scratch, WORSE)):
        axes.fill_between(
            mean.index, worst, scratch, where=where, interpolate=True, color=colour, alpha=0.25, linewidth=0
        )


def _spread(axes: Axes, frame: pd.DataFrame, x: str, y: str, colour: Any, band: bool = False) -> None:
    points = frame.groupby(x)[y].agg(["mean", "min", "max"])
    marker: Row = {} if colour == "black" else {"marker": "o", "markersize": 2.5, "markeredgewidth": 0}
    axes.plot(points.index, points["mean"], color=colour, linewidth=1.1, **marker)
    if band:
        axes.fill_between(points.index, points["min"], points["max"], color=colour, alpha=0.2, linewidth=0)
    else:
        axes.vlines(points.index, points["min"], points["max"], color=colour, linewidth=0.8)


def _title(axes: Axes, row: Row, figure: str, place: tuple[float, float]) -> None:
    axes.set_title(row_name(row["defense"], row["mask"]), loc="left", pad=3, parse_math=False)
    sides = ("left" if place[0] < 0.5 else "right", "bottom" if place[1] < 0.5 else "top")
    axes.text(*place, figure, transform=axes.transAxes, ha=sides[0], va=sides[1], fontweight="bold")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.grid(True, color="0.9")
    axes.set_axisbelow(True)


def _finish(figure: Figure, x: str, y: str, handles: Sequence[Any]) -> None:
    for axes in figure.axes:
        sns.despine(ax=axes)
    figure.supxlabel(x, fontsize=8)
    figure.supylabel(y, fontsize=8)
    figure.legend(handles=list(handles), loc="outside upper center", ncols=min(len(handles), 3), frameon=False)
