"""The tables that a report is made of, and their files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields

import pandas as pd

from ntbench.measure import board, lines, tasks
from ntbench.measure import factors as by_factor
from ntbench.measure import tables as cells
from ntbench.measure.reproduced import Reproduction
from ntbench.measure.standing import Study
from ntbench.suite import Suite
from ntbench.types import Result, domain_label

DECIMALS = 6
MAPPED = 3  # tasks from which a map of sources and targets is drawn
SEVERAL = ("tasks", "profiles", "map")
"""Tables that say nothing about a single task."""


@dataclass(frozen=True)
class Tables:
    """What was measured; each table is a CSV file of its name, the trajectories are Parquet."""

    leaderboard: pd.DataFrame
    results: pd.DataFrame
    trajectories: pd.DataFrame
    failures: pd.DataFrame
    coverage: pd.DataFrame
    curves: pd.DataFrame
    budgets: pd.DataFrame
    attacks: pd.DataFrame
    factors: pd.DataFrame
    tasks: pd.DataFrame
    profiles: pd.DataFrame
    map: pd.DataFrame
    detectable: float
    """The smallest leak that these results tell from 0."""
    protocols: Reproduction
    """What runs by the papers' own protocols give."""

    @classmethod
    def of(cls, results: Sequence[Result], suite: Suite) -> Tables:
        """Measure results; the tables share one study of them."""
        study = Study(results, suite)
        return cls(
            leaderboard=board.leaderboard_table(study, suite),
            results=cells.results_table(results),
            trajectories=cells.trajectories_table(results),
            failures=cells.failures_table(results),
            coverage=cells.coverage_table(results),
            curves=lines.learning_curves(study, suite),
            budgets=lines.budgets_table(study, suite),
            attacks=lines.heatmap_table(study, suite),
            factors=by_factor.factors_table(study, suite),
            tasks=tasks.tasks_table(study, suite),
            profiles=tasks.profiles_table(study, suite),
            map=_labelled(lines.map_table(study, suite)),
            detectable=lines.detectable(study, suite),
            protocols=Reproduction.of(results, suite),
        )

    @property
    def several(self) -> bool:
        """Return whether there is more than one task."""
        return self.leaderboard["task"].nunique() > 1

    @property
    def files(self) -> dict[str, bytes]:
        """Return the tables as files by name."""
        names = [field.name for field in fields(self) if field.name not in ("trajectories", "detectable", "protocols")]
        named = {f"{n}.csv": _csv(getattr(self, n)) for n in names if self.several or n not in SEVERAL}
        return named | {"trajectories.parquet": _parquet(self.trajectories)}


def _labelled(table: pd.DataFrame) -> pd.DataFrame:
    # A domain may be a folder; where it lies on a machine is nobody's business.
    return table.assign(**{end: table[end].map(domain_label) for end in ("source", "target")})


def _csv(table: pd.DataFrame) -> bytes:
    return table.round(DECIMALS).to_csv(index=False).encode("utf-8", "replace")


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()
