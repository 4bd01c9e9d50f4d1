"""Small multiples of one task, a panel per row: learning curves over samples, and accuracy over attack steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from ntbench.measure.curves import checked, so_far
from ntbench.report.display import number, ratio, row_name

WIDTH = 7.0  # inches: two columns of a paper
COLUMNS = 4
QUANTILE = 0.9
WORSE, BETTER = "#2166ac", "#b2182b"  # the ends of the colour map RdBu: worse and better than scratch
DOTS = (0, (1.5, 1.2))
Row = dict[str, Any]


def colours(board: pd.DataFrame) -> dict[str, Any]:
    """Return one colour per defense: grey for controls, the colour-blind palette for the others, by label."""
    own = sorted(set(board.loc[~board["control"].astype(bool), "defense"]))
    palette = sns.color_palette("colorblind", max(len(own), 1))
    return {name: (0.45, 0.45, 0.45) for name in board["defense"]} | dict(zip(own, palette, strict=False))


def records(board: pd.DataFrame) -> list[Row]:
    """Return the leaderboard's rows by column name."""
    return [{str(name): value for name, value in row.items()} for row in board.to_dict("records")]


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
        axes.plot(mean.index, mean["paper"], color=colour, linewidth=0.9, linestyle=DOTS)
        for name, ink in (("scratch", "black"), ("worst", colour)):
            _spread(axes, part, "samples", name, ink)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _title(axes, row, f"SLC {number(row['slc'], signed=True)}")
    handles = [
        Line2D([], [], color="black", label="scratch, tuned"),
        Line2D([], [], color="dimgrey", marker="o", markersize=3, label="strongest attack (colour of the defense)"),
        Line2D([], [], color="dimgrey", linestyle=DOTS, label="attack of the paper"),
        Patch(color=BETTER, alpha=0.25, linewidth=0, label="attacker gains"),
        Patch(color=WORSE, alpha=0.25, linewidth=0, label="attacker loses"),
    ]
    _finish(figure, "target training samples (log scale)", "target test accuracy", handles)
    return figure


def envelopes(trajectories: pd.DataFrame, selection: str) -> pd.DataFrame:
    """Return per row, step and seed the test accuracy that the best attack holds by then, at the largest ratio.

    A run that has ended keeps its last model. The attack has the best seed mean of what the selection rule chooses by,
    among those that every seed has scored by then.
    """
    place = ["defense", "mask", "step", "attack"]
    ends = trajectories[trajectories["ratio"] == trajectories["ratio"].max()]
    if ends.empty:
        return pd.DataFrame(columns=[*place, "seed", "accuracy"])
    held = _held(ends, selection)
    mean = held.groupby(place)["score"].agg(["mean", "count"]).reset_index()
    mean = mean[mean["count"] == held["seed"].nunique()]
    best = mean.loc[mean.groupby(place[:-1])["mean"].idxmax(), place]
    return best.merge(held, on=place)[[*place, "seed", "accuracy"]]


def _held(ends: pd.DataFrame, selection: str) -> pd.DataFrame:
    # Per run and step that any run was scored at: what its attacker chooses by, and its test accuracy.
    runs = ["defense", "mask", "attack", "seed"]
    val, test = (
        ends[ends["split"] == split].pivot_table(index=runs, columns="step", values="value").ffill(axis=1)
        for split in ("val", "test")
    )
    arrays = zip(("score", "accuracy"), so_far(checked(selection), val.to_numpy(), test.to_numpy()), strict=True)
    score, accuracy = (
        pd.DataFrame(array, val.index, val.columns).melt(ignore_index=False, value_name=name) for name, array in arrays
    )
    return score.assign(accuracy=accuracy["accuracy"].to_numpy()).reset_index().dropna()


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
        _title(axes, row, "" if text == "-" else f"{text}x")
    handles = [
        Line2D([], [], color="black", label="scratch, tuned"),
        Line2D([], [], color="dimgrey", marker="o", markersize=3, label="protected weights (colour of the defense)"),
        Line2D([], [], color="black", linestyle=":", linewidth=0.8, label="90 % of what scratch reaches"),
    ]
    _finish(figure, "optimizer steps of the attack, at the largest sample ratio", "target test accuracy", handles)
    return figure


def _rows(board: pd.DataFrame, frame: pd.DataFrame) -> list[Row]:
    there = set(zip(frame["defense"], frame["mask"], strict=True))
    return [r for r in records(board) if (r["defense"], r["mask"]) in there and r["defense"] != "scratch"]


def _parts(rows: Sequence[Row], frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for row in rows:
        yield frame[(frame["defense"] == row["defense"]) & (frame["mask"] == row["mask"])]


def _panels(count: int) -> Figure:
    columns = min(COLUMNS, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(WIDTH, 0.75 + 1.35 * lines))
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


def _title(axes: Axes, row: Row, figure: str) -> None:
    axes.set_title(row_name(row["defense"], row["mask"]), loc="left", pad=3, parse_math=False)
    axes.text(0.04, 0.97, figure, transform=axes.transAxes, va="top", fontweight="bold")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.grid(True, color="0.9")
    axes.set_axisbelow(True)


def _finish(figure: Figure, x: str, y: str, handles: Sequence[Any]) -> None:
    low, high = figure.axes[0].get_ylim()
    # Room for the number above the curves.
    figure.axes[0].set_ylim(low, high + 0.2 * (high - low))
    for axes in figure.axes:
        sns.despine(ax=axes)
    figure.supxlabel(x, fontsize=8)
    figure.supylabel(y, fontsize=8)
    figure.legend(handles=list(handles), loc="outside upper center", ncols=min(len(handles), 3), frameon=False)
