"""Small multiples of one task, a panel a row: accuracy over samples, uplift over compute, leak over permitted drop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from ntbench.report.display import Record, number, points, records, text, yes
from ntbench.report.style import GAIN, INK, LOSS, NARROW, SOFT, WIDE, Drawn, bare, label, marker
from ntbench.report.words import SPOKEN, worded

DOTS = (0, (1.5, 1.2))
MOST_TICKS = 5
CURVE_AXES = ("target samples, log scale", "target test accuracy")
BUDGET_AXES = ("budget of a run in units of T90, log scale", "uplift, points")
PERMITTED_AXES = ("permitted drop of source accuracy, points", "leak")
"""What the two axes of the panels are."""


def learning_curves_figure(
    rows: Sequence[Record], curves: pd.DataFrame, width: float = WIDE, objective: str = SPOKEN
) -> Figure | None:
    """Draw per row accuracy over samples: of the release alone and of the baseline, the area between shaded.

    The objective's name decides what accuracy is called.
    """
    curves = _measured(curves)
    shown = _there(rows, curves)
    if not shown:
        return None
    figure = _panels(len(shown), width)
    for axes, row in zip(figure.axes, shown, strict=True):
        _curve_panel(axes, row, _part(row, curves))
    _log_axis(figure.axes, sorted(set(curves["samples"])), "{:g}".format)
    handles = [
        Line2D([], [], color=INK, label="baseline"),
        Line2D([], [], color=SOFT, marker="o", markersize=3, label="release, colour by verdict"),
        Line2D([], [], color=SOFT, linestyle=DOTS, label="release, one fixed attack"),
        Patch(color=GAIN, alpha=0.25, linewidth=0, label="better than the baseline"),
        Patch(color=LOSS, alpha=0.25, linewidth=0, label="worse"),
    ]
    x, y = (worded(axis, objective) for axis in CURVE_AXES)
    return _finish(figure, width, x, y, handles)


def learning_curves_data(rows: Sequence[Record], curves: pd.DataFrame) -> pd.DataFrame:
    """Return what `learning_curves_figure` draws: means over seeds and the least and most of them."""
    curves = _measured(curves)
    told = [_summary(_part(row, curves)).reset_index() for row in _there(rows, curves)]
    return _joined(rows, curves, told)


def learning_curve(axes: Axes, row: Record, curves: pd.DataFrame, objective: str = SPOKEN) -> None:
    """Draw the panel of one row of `learning_curves_figure` on given axes, in the words of the objective."""
    _curve_panel(axes, row, _part(row, curves))
    _log_axis([axes], sorted(set(curves["samples"])), "{:g}".format)
    axes.set(xlabel=worded(CURVE_AXES[0], objective), ylabel=worded(CURVE_AXES[1], objective))


def _curve_panel(axes: Axes, row: Record, part: pd.DataFrame) -> None:
    told = _summary(part)
    _shade(axes, told["release"], told["baseline"])
    axes.plot(told.index, told["paper"], color=SOFT, linewidth=0.9, linestyle=DOTS)
    _spread(axes, told, "baseline", INK)
    _spread(axes, told, "release", marker(row)[0])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _finish_panel(axes, row, f"uplift {points(row['uplift'], signed=True)}")


def compute_figure(rows: Sequence[Record], budgets: pd.DataFrame, width: float = WIDE) -> Figure | None:
    """Draw per row the uplift that a budget gives, beside that of the unprotected release."""
    budgets = _finite(budgets, "uplift")
    shown = _there(rows, budgets)
    if not shown:
        return None
    figure = _panels(len(shown), width)
    for axes, row in zip(figure.axes, shown, strict=True):
        _budget_panel(axes, row, budgets)
    _log_axis(figure.axes, _halves(budgets["budget"]), _share)
    handles = [
        Line2D([], [], color=SOFT, marker="o", markersize=3, label="release, colour by verdict"),
        Line2D([], [], color=SOFT, linestyle=DOTS, label="none"),
        Line2D([], [], color=INK, linewidth=0.8, label="baseline"),
    ]
    return _finish(figure, width, *BUDGET_AXES, handles)


def compute_data(rows: Sequence[Record], budgets: pd.DataFrame) -> pd.DataFrame:
    """Return what `compute_figure` draws; that of the unprotected release stands beside every row."""
    budgets = _finite(budgets, "uplift")
    told = [_part(row, budgets)[["budget", "uplift", "uplift_low", "uplift_high"]] for row in _there(rows, budgets)]
    return _joined(rows, budgets, told)


def compute_curve(axes: Axes, row: Record, budgets: pd.DataFrame) -> None:
    """Draw the panel of one row of `compute_figure` on given axes."""
    _budget_panel(axes, row, budgets)
    _log_axis([axes], _halves(budgets["budget"]), _share)
    axes.set(xlabel=BUDGET_AXES[0], ylabel=BUDGET_AXES[1])


def _budget_panel(axes: Axes, row: Record, budgets: pd.DataFrame) -> None:
    part, bare_release = _part(row, budgets), budgets[budgets["defense"] == "none"]
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.plot(bare_release["budget"], bare_release["uplift"], color=SOFT, linewidth=1, linestyle=DOTS)
    colour = marker(row)[0]
    low, high = (part[f"uplift_{end}"].to_numpy(float) for end in ("low", "high"))
    axes.fill_between(part["budget"], low, high, color=colour, alpha=0.25, linewidth=0)
    axes.plot(part["budget"], part["uplift"], color=colour, linewidth=1.2, marker="o", markersize=2.5)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(100 * value, 0)))
    _finish_panel(axes, row, f"mean {points(row['compute_uplift'], signed=True)}")


def permitted_figure(table: pd.DataFrame, width: float = WIDE) -> Figure | None:
    """Draw per family of rows that differ in the drop which they permit alone how leak depends on it."""
    groups = [records(part) for _, part in table.groupby(["family", "mask"], sort=False)]
    if not groups:
        return None
    figure = _panels(len(groups), width)
    for axes, rows in zip(figure.axes, groups, strict=True):
        _permitted_panel(axes, rows)
    ticks = sorted(100 * permitted for permitted in set(table["permitted"]))
    figure.axes[0].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    handles = [
        Line2D([], [], color=SOFT, marker="o", markersize=3, label="leak, colour by verdict"),
        Line2D([], [], color=SOFT, linestyle=DOTS, label="none"),
        Line2D([], [], color=INK, linewidth=0.8, label="baseline"),
    ]
    return _finish(figure, width, *PERMITTED_AXES, handles)


def _permitted_panel(axes: Axes, rows: Sequence[Record]) -> None:
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.axhline(1, color=SOFT, linewidth=1, linestyle=DOTS)
    axes.plot([100 * row["permitted"] for row in rows], [row["leak"] for row in rows], color=SOFT, linewidth=1)
    for row in rows:
        x, (colour, sign) = 100 * row["permitted"], marker(row)
        axes.vlines(x, row["leak_low"], row["leak_high"], color=colour, linewidth=1)
        axes.plot(x, row["leak"], sign, color=colour, markersize=3.5)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 1)))
    _finish_panel(axes, {**rows[0], "defense": rows[0]["family"], "verdict": ""}, "")


def _halves(budgets: pd.Series) -> list[float]:
    # Budgets are rounded to whole steps; ticks are the powers of two that they stand for.
    low, high = 0.9 * float(budgets.min()), 1.1 * float(budgets.max())
    return [2.0**k for k in range(-10, 11) if low <= 2.0**k <= high] or sorted(set(budgets))


def _share(value: float) -> str:
    return f"{value:g}" if value >= 1 else f"1/{1 / value:.3g}"


def _measured(curves: pd.DataFrame) -> pd.DataFrame:
    return _finite(_finite(curves, "worst"), "baseline")


def _finite(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    known: pd.DataFrame = frame[np.isfinite(frame[name].astype(float))]
    return known


def _summary(part: pd.DataFrame) -> pd.DataFrame:
    # By sample count: means over seeds, and what they span.
    seen, ends = part.groupby("samples"), {"": "mean", "_min": "min", "_max": "max"}
    sides = {"release": "worst", "baseline": "baseline"}
    told = {f"{side}{end}": seen[name].agg(how) for side, name in sides.items() for end, how in ends.items()}
    return pd.DataFrame(told | {"paper": seen["paper"].mean()})


def _joined(rows: Sequence[Record], frame: pd.DataFrame, told: Sequence[pd.DataFrame]) -> pd.DataFrame:
    named = []
    for row, part in zip(_there(rows, frame), told, strict=True):
        place = pd.DataFrame({"defense": row["defense"], "mask": row["mask"]}, index=part.index)
        named.append(pd.concat([place, part], axis=1))
    return pd.concat(named, ignore_index=True) if named else pd.DataFrame()


def _there(rows: Sequence[Record], frame: pd.DataFrame) -> list[Record]:
    places = set(zip(frame["defense"], frame["mask"], strict=True))
    return [row for row in rows if (row["defense"], row["mask"]) in places and not yes(row, "baseline")]


def _part(row: Record, frame: pd.DataFrame) -> pd.DataFrame:
    own: pd.DataFrame = frame[(frame["defense"] == row["defense"]) & (frame["mask"] == row["mask"])]
    return own


def _panels(count: int, width: float) -> Figure:
    columns = min(2 if width <= NARROW else 4, count)
    lines = -(-count // columns)
    figure = Drawn(figsize=(width, 0.9 + 1.3 * lines), layout="constrained")
    first: Axes | None = None
    for i in range(count):
        axes = figure.add_subplot(lines, columns, i + 1, sharex=first, sharey=first)
        first = first or axes
        axes.tick_params(labelbottom=i + columns >= count, labelleft=i % columns == 0)
    return figure


def _shade(axes: Axes, release: pd.Series, baseline: pd.Series) -> None:
    one, other = release.to_numpy(float), baseline.to_numpy(float)
    for where, colour in ((one >= other, GAIN), (one <= other, LOSS)):
        axes.fill_between(
            release.index, one, other, where=where, interpolate=True, color=colour, alpha=0.2, linewidth=0
        )


def _spread(axes: Axes, told: pd.DataFrame, side: str, colour: Any) -> None:
    style: dict[str, Any] = {} if colour == INK else {"marker": "o", "markersize": 2.5, "markeredgewidth": 0}
    axes.plot(told.index, told[side], color=colour, linewidth=1.1, **style)
    axes.vlines(told.index, told[f"{side}_min"], told[f"{side}_max"], color=colour, linewidth=0.8)


def _log_axis(panels: Sequence[Axes], ticks: Sequence[float], shown: Any) -> None:
    # A formatter of our own: names are no formulas here, and those of matplotlib's log axes are.
    step = -(-len(ticks) // MOST_TICKS)
    kept = list(reversed(ticks[::-1][::step]))
    panels[0].set_xscale("log")
    panels[0].xaxis.set_major_locator(FixedLocator(kept))
    panels[0].xaxis.set_minor_locator(NullLocator())
    panels[0].xaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value)))


def _finish_panel(axes: Axes, row: Record, said: str) -> None:
    axes.set_title(label(row, 22), loc="left", pad=3)
    tone = "bold" if text(row, "verdict") == "holds" else "normal"
    axes.text(0.03, 0.97, said, transform=axes.transAxes, va="top", fontsize=7, fontweight=tone)
    bare(axes)


def _finish(figure: Figure, width: float, x: str, y: str, handles: Sequence[Any]) -> Figure:
    low, high = figure.axes[0].get_ylim()
    # Room for the number above the curves.
    figure.axes[0].set_ylim(low, high + 0.2 * (high - low))
    figure.supxlabel(x, fontsize=8)
    figure.supylabel(y, fontsize=8)
    columns = 1 if width <= NARROW else 3
    figure.legend(handles=list(handles), loc="outside upper center", ncols=min(len(handles), columns), frameon=False)
    return figure
