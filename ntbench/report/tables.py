"""The tables that a report is made of, and their files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields

import pandas as pd

from ntbench.measure import board, factors
from ntbench.measure import tables as measured
from ntbench.suite import Suite
from ntbench.types import Result

DECIMALS = 6
MAPPED = 3  # tasks from which a map of sources and targets is drawn


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
    factors: pd.DataFrame
    map: pd.DataFrame

    @classmethod
    def of(cls, results: Sequence[Result], suite: Suite) -> Tables:
        """Measure results."""
        return cls(
            leaderboard=board.leaderboard_table(results, suite),
            results=measured.results_table(results, suite),
            trajectories=measured.trajectories_table(results, suite),
            failures=measured.failures_table(results, suite),
            coverage=measured.coverage_table(results, suite),
            curves=measured.learning_curves(results, suite),
            budgets=measured.budgets_table(results, suite),
            factors=factors.factors_table(results, suite),
            map=measured.map_table(results, suite),
        )

    @property
    def files(self) -> dict[str, bytes]:
        """Return the tables as files by name; the map where it has three tasks, all others always."""
        found = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "trajectories"}
        if self.map["task"].nunique() < MAPPED:
            del found["map"]
        named = {f"{name}.csv": _csv(table) for name, table in found.items()}
        return named | {"trajectories.parquet": _parquet(self.trajectories)}


def _csv(table: pd.DataFrame) -> bytes:
    return table.round(DECIMALS).to_csv(index=False).encode("utf-8", "replace")


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()
