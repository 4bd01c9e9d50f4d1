"""What each hyper-parameter of a defense does to its leak: a panel a defense, a line a row."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ntbench.report.display import records
from ntbench.report.forest import ranking_figure
from ntbench.report.style import WIDE, Drawn, label


def ablations_figure(table: pd.DataFrame, width: float = WIDE) -> Figure | None:
    """Draw per family the leak of its first row and of those that change one hyper-parameter of it.

    None where no rows do.
    """
    groups = [records(part) for _, part in table.groupby(["family", "mask"], sort=False)]
    if not groups:
        return None
    heights = [0.8 + 0.17 * len(rows) for rows in groups]
    figure = Drawn(figsize=(width, sum(heights)), layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, rows in zip(panels, groups, strict=True):
        named = [row | {"defense": row["changed"] or row["family"], "mask": "dense"} for row in rows]
        ranking_figure(named, width, axes)
        axes.set_title(label({**rows[0], "defense": rows[0]["family"]}), loc="left", pad=14)
    return figure
