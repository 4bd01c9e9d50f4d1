"""The report's figures by name, in a figure of their own or on given matplotlib axes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntbench.errors import UserError, unknown
from ntbench.report import forest, heat, panels, views
from ntbench.report.display import Record, yes
from ntbench.report.pictures import mapped
from ntbench.report.sentences import ranking
from ntbench.report.style import WIDE, canvas, styled
from ntbench.suite import Suite
from ntbench.types import Task

PANEL = (3.5, 2.4)
"""Width and height in inches of a panel that stands alone."""
Panel = Callable[[Axes, Record, pd.DataFrame], None]


class Plots:
    """Draws a run's figures; each method returns the figure, which a notebook shows and `savefig` writes.

    Figures are those of the ranked track. `task` may be left out where there is one; `axes` are matplotlib axes to
    draw on, in place of a figure of its own. Raises UserError where there is nothing to draw.
    """

    def __init__(self, table: Callable[[str], pd.DataFrame], task: Callable[[str], Task], suite: Suite) -> None:
        """Take what gives tables and tasks by name."""
        self._table, self._task, self._suite = table, task, suite

    def leak(self, task: str = "", axes: Axes | None = None) -> Figure:
        """Draw what every row leaks, with its interval."""
        width = WIDE if axes is None else axes.get_window_extent().width / axes.figure.dpi
        with styled():
            return _there(forest.ranking_figure(self._rows(task), width, axes), "leak")

    def learning_curves(self, defense: str = "", task: str = "", axes: Axes | None = None) -> Figure:
        """Draw accuracy over samples, of one defense or a panel for each; axes need a defense."""
        words = self._suite.objective.name
        if defense or axes is not None:
            draw = partial(panels.learning_curve, objective=words)
            return self._panel(draw, "curves", defense, task, axes)
        with styled():
            figure = panels.learning_curves_figure(self._rows(task), self._part("curves", task), objective=words)
        return _there(figure, "learning curve")

    def compute(self, defense: str = "", task: str = "", axes: Axes | None = None) -> Figure:
        """Draw uplift over the budget of a run, of one defense or a panel for each; axes need a defense."""
        if defense or axes is not None:
            return self._panel(panels.compute_curve, "budgets", defense, task, axes)
        with styled():
            figure = panels.compute_figure(self._rows(task), self._part("budgets", task))
        return _there(figure, "uplift over compute")

    def attacks(self, task: str = "", axes: Axes | None = None) -> Figure:
        """Draw SLC-AUC of every single attack on every row."""
        with styled():
            return _there(heat.attacks_figure(self._rows(task), self._part("attacks", task), axes), "single attack")

    def factors(self, task: str = "", axes: Axes | None = None) -> Figure:
        """Draw leak by factor of the attack, such as its optimizer, and row."""
        levels = views.levels(self._table("factors"), self._table("leaderboard"), self._task(task))
        with styled():
            return _there(heat.factors_figure(self._rows(task), levels, axes), "factor")

    def map(self, number: str = "leak") -> Figure:
        """Draw `leak` or `slc` of every source and target, a panel a row."""
        if number not in heat.MAPS:
            raise unknown("number", number, heat.MAPS)
        table = self._table("map")
        with styled():
            ranked = table[table["track"] == "target"]
            return _there(heat.map_figure(ranked, mapped(self._table("leaderboard")), number), number)

    def _panel(self, draw: Panel, name: str, defense: str, task: str, axes: Axes | None) -> Figure:
        row, part = self._row(defense, task), self._part(name, task)
        if not (part["defense"] == row["defense"]).any():
            raise UserError(f"{defense} has no {name} to draw; run its cells first")
        with styled():
            figure, place = canvas(*PANEL, axes)
            draw(place, row, part)
        return figure

    def _row(self, defense: str, task: str) -> Record:
        dense = {row["defense"]: row for row in self._rows(task) if row["mask"] == "dense" and not yes(row, "baseline")}
        if not defense:
            raise UserError(f"one panel shows one defense; name it with defense=: {', '.join(dense) or 'none has run'}")
        if defense not in dense:
            raise unknown("row", defense, dense)
        return dense[defense]

    def _rows(self, task: str) -> list[Record]:
        return ranking(self._table("leaderboard"), self._task(task))

    def _part(self, name: str, task: str) -> pd.DataFrame:
        return views.of_task(self._table(name), self._task(task))


def _there(figure: Figure | None, what: str) -> Figure:
    if figure is None:
        raise UserError(f"there is no {what} to draw yet; no row has a number")
    return figure
