"""Maps of numbers: leak by factor and row, and source by target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ntbench.report.display import MISSING, Record, line, number, short, yes
from ntbench.report.style import NARROW, SOFT, WIDE, Drawn, canvas, label

LINE = 0.17  # inches
MOST_SLANTED = 10  # columns of a narrow figure; slanted names that are closer lie on each other
MOST = 60
"""Attacks that a figure shows: more fit no page. Its data have all of them."""
MAPS = {"slc": "SLC-AUC", "leak": "leak"}


def factors_figure(
    rows: Sequence[Record], levels: Sequence[Record], axes: Axes | None = None, width: float = WIDE
) -> Figure | None:
    """Draw leak by factor and value, a column for each of the board's rows; `levels` are the table of factors.

    On given axes, or in a figure of its own.
    """
    table = factors_data(rows, levels)
    pairs = list(dict.fromkeys(zip(table["factor"], table["value"], strict=True)))
    places = [place for place in _order(rows) if place in set(zip(table["defense"], table["mask"], strict=True))]
    grid = table.pivot_table(index=["factor", "value"], columns=["defense", "mask"], values="leak", dropna=False)
    if grid.empty or not np.isfinite(grid.to_numpy(float)).any():
        return None
    values = grid.reindex(index=pd.MultiIndex.from_tuples(pairs), columns=pd.MultiIndex.from_tuples(places))
    narrow = width <= NARROW
    figure, axes = canvas(width, 1.6 + LINE * len(pairs), axes)
    _grid(axes, values.to_numpy(float), Normalize(0, 1), 5.5 if len(places) <= (6 if narrow else 24) else 0)
    axes.set_yticks(range(len(pairs)), [short(value, 16 if narrow else 34) for _, value in pairs])
    _columns(axes, places, narrow)
    _factor_heads(axes, [factor for factor, _ in pairs], narrow)
    return figure


def factors_data(rows: Sequence[Record], levels: Sequence[Record]) -> pd.DataFrame:
    """Return what `factors_figure` draws, a line a cell."""
    table = pd.DataFrame(list(levels), columns=["factor", "value", "defense", "mask", "leak"])
    return _among(table, _order(rows))


def attacks_figure(
    rows: Sequence[Record], table: pd.DataFrame, axes: Axes | None = None, width: float = WIDE
) -> Figure | None:
    """Draw SLC-AUC of every single attack against the tuned baseline, a column for each of the board's rows.

    Of more than 60 attacks those that rank highest against any row. On given axes, or in a figure of its own.
    """
    table, narrow = attacks_data(rows, table), width <= NARROW
    grid = table.pivot_table(index=["attack", "attack_mask"], columns=["defense", "mask"], values="slc", sort=False)
    places = [place for place in _order(rows) if place in grid.columns]
    count, grid = len(grid), _highest(grid[places])
    values = grid.to_numpy(float)
    if not np.isfinite(values).any():
        return None
    reach = max(float(np.nanmax(np.abs(values))), 1e-6)
    figure, axes = canvas(width, 1.4 + LINE * len(grid), axes)
    _grid(axes, values, TwoSlopeNorm(0, -reach, reach), 5.5 if len(places) <= (6 if narrow else 20) else 0)
    names = [short(name, 20) + (" (kept)" if mask == "keep" else "") for name, mask in grid.index]
    axes.set_yticks(range(len(grid)), names)
    if len(grid) < count:
        axes.set_title(f"{len(grid)} of {count}, the highest against any row", loc="left", pad=3, color=SOFT)
    _columns(axes, places, narrow)
    return figure


def _highest(grid: pd.DataFrame) -> pd.DataFrame:
    """Return so many attacks as a figure shows, in the order of the suite: each is among the first against some row."""
    ranks = grid.rank(ascending=False).min(axis=1)
    return grid[grid.index.isin(ranks.nsmallest(MOST).index)]


def attacks_data(rows: Sequence[Record], table: pd.DataFrame) -> pd.DataFrame:
    """Return what `attacks_figure` draws, a line a cell."""
    return _among(table[["attack", "attack_mask", "defense", "mask", "slc"]], _order(rows))


def map_figure(table: pd.DataFrame, rows: Sequence[Record], name: str, width: float = WIDE) -> Figure | None:
    """Draw a number, `slc` or `leak`, of every source and target, a panel a row with the mean in its title."""
    table = map_data(table, rows, name)
    there = set(zip(table["defense"], table["mask"], strict=True))
    shown = [row for row in rows if (row["defense"], row["mask"]) in there]
    if not shown:
        return None
    sources, targets = (list(dict.fromkeys(table[end])) for end in ("source", "target"))
    columns = min(2 if width <= NARROW else 4, len(shown))
    lines = -(-len(shown) // columns)
    figure = Drawn(figsize=(width, 0.9 + lines * (0.45 + 0.22 * len(sources))), layout="constrained")
    reach = max(float(np.abs(table[name].astype(float)).max()), 1e-6)
    norm = TwoSlopeNorm(0, -reach, reach) if name == "slc" else Normalize(0, 1)
    for i, row in enumerate(shown):
        axes = figure.add_subplot(lines, columns, i + 1)
        part = table[(table["defense"] == row["defense"]) & (table["mask"] == row["mask"])]
        values = part.pivot_table(index="source", columns="target", values=name).reindex(sources, columns=targets)
        _grid(axes, values.to_numpy(float), norm, 6.5 if len(targets) <= 6 else 5)
        _map_heads(axes, row, float(np.nanmean(values.to_numpy(float))), (sources, targets), i, columns, len(shown))
    figure.supxlabel("target", fontsize=8)
    figure.supylabel("source", fontsize=8)
    return figure


def map_data(table: pd.DataFrame, rows: Sequence[Record], name: str) -> pd.DataFrame:
    """Return what `map_figure` draws, a line a cell."""
    known = table[np.isfinite(table[name].astype(float))]
    return _among(known[["defense", "mask", "source", "target", name]], _order(rows))


def _order(rows: Sequence[Record]) -> list[tuple[str, str]]:
    return [(row["defense"], row["mask"]) for row in rows if not yes(row, "baseline")]


def _among(table: pd.DataFrame, places: Sequence[tuple[str, str]]) -> pd.DataFrame:
    there = [place in places for place in zip(table["defense"], table["mask"], strict=True)]
    return table[np.array(there, dtype=bool)]


def _columns(axes: Axes, places: Sequence[tuple[str, str]], narrow: bool) -> None:
    heads = [label({"defense": name, "mask": mask}, 18) for name, mask in places]
    if narrow and len(places) > MOST_SLANTED:
        axes.set_xticks(range(len(places)), heads, rotation=90)
    else:
        axes.set_xticks(range(len(places)), heads, rotation=45, ha="right", rotation_mode="anchor")


def _map_heads(
    axes: Axes, row: Record, mean: float, ends: tuple[Sequence[str], Sequence[str]], i: int, columns: int, count: int
) -> None:
    sources, targets = ends
    axes.set_title(f"{label(row, 18)}: {number(mean, signed=True)}", loc="left", pad=3, fontsize=7)
    left = [short(name, 12) for name in sources] if i % columns == 0 else [""] * len(sources)
    axes.set_yticks(range(len(sources)), left)
    bottom = [short(name, 12) for name in targets] if i + columns >= count else [""] * len(targets)
    axes.set_xticks(range(len(targets)), bottom, rotation=30, ha="right", rotation_mode="anchor")


def _grid(axes: Axes, values: NDArray[np.float64], norm: Any, size: float) -> None:
    two_sided = isinstance(norm, TwoSlopeNorm)
    image = axes.imshow(values, cmap="RdBu_r" if two_sided else "Oranges", norm=norm, aspect="auto")
    axes.set_facecolor("0.93")
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
    for (y, x), value in np.ndenumerate(values):
        if size:
            said = number(value) if np.isfinite(value) else MISSING
            dark = np.isfinite(value) and np.asarray(image.to_rgba(np.array([value])))[0, :3].sum() < 1.35
            axes.text(x, y, said, ha="center", va="center", fontsize=size, color="white" if dark else "black")


def _factor_heads(axes: Axes, factors: Sequence[str], narrow: bool) -> None:
    for place, name in enumerate(factors):
        if place and name != factors[place - 1]:
            axes.axhline(place - 0.5, color="white", linewidth=4)
        if place == 0 or name != factors[place - 1]:
            # A factor has two values at least, so that there is room for a second line below.
            said, up = (line(name).replace(" ", "\n"), 0.4) if narrow else (line(name), 0)
            style: dict[str, Any] = {"va": "top" if narrow else "center", "fontweight": "bold"}
            axes.text(1.01, place - up, said, transform=axes.get_yaxis_transform(), **style)
