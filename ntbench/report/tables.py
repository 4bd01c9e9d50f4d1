"""The tables that a report is made of, and their files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields

import pandas as pd

from ntbench.measure import ablations, agreement, board, lines, permitted, tasks
from ntbench.measure import factors as by_factor
from ntbench.measure import tables as cells
from ntbench.measure.registered import Metrics, Registered
from ntbench.measure.reproduced import Reproduction
from ntbench.measure.standing import Results, Study
from ntbench.suite import Suite
from ntbench.types import Result, domain_label

DECIMALS = 6
MAPPED = 3  # tasks from which a map of sources and targets is drawn
SEVERAL = ("tasks", "profiles", "map")
"""Tables that say nothing about a single task."""
VARIED = ("permitted", "ablations")
"""Tables of rows that differ in one thing, which few suites have."""


OF_CELLS: dict[str, Callable[[Iterable[Result]], pd.DataFrame]] = {
    "results": cells.results_table,
    "trajectories": cells.trajectories_table,
    "failures": cells.failures_table,
    "coverage": cells.coverage_table,
}
"""What is told of cells, by the name of the table."""
OF_ROWS: dict[str, Callable[[Results, Suite], pd.DataFrame]] = {
    "leaderboard": board.leaderboard_table,
    "curves": lines.learning_curves,
    "budgets": lines.budgets_table,
    "attacks": lines.heatmap_table,
    "factors": by_factor.factors_table,
    "permitted": permitted.permitted_table,
    "ablations": ablations.ablations_table,
    "tasks": tasks.tasks_table,
    "profiles": tasks.profiles_table,
    "map": lambda results, suite: _labelled(lines.map_table(results, suite)),
}
"""What is told of rows, by the name of the table."""


def table(name: str, results: Sequence[Result], study: Study, suite: Suite) -> pd.DataFrame:
    """Return one of the tables by name; those of rows share the study."""
    return OF_CELLS[name](results) if name in OF_CELLS else OF_ROWS[name](study, suite)


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
    permitted: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(permitted.COLUMNS)))
    """A file only where a suite has rows that differ in the drop that they permit."""
    ablations: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(ablations.COLUMNS)))
    """A file only where a suite has rows that change one hyper-parameter of another."""
    metrics: Metrics = ()
    """The metrics that somebody brought, of which the leaderboard has columns too."""
    drawn: pd.DataFrame = field(default_factory=lambda: cells.drawn_table([]))
    """Images that models made, by cell."""
    agreement: pd.DataFrame = field(default_factory=lambda: agreement.agreement_table([]))
    """Scores of attackers' last models beside the distance of what they make."""

    @classmethod
    def of(cls, results: Sequence[Result], suite: Suite, registered: Registered | None = None) -> Tables:
        """Measure results; the tables share one study of them. What metrics gave for it stands in the leaderboard."""
        study = Study(results, suite)
        measured = {name: table(name, results, study, suite) for name in (*OF_CELLS, *OF_ROWS)}
        found, repeated = registered or Registered(), Reproduction.of(results, suite)
        measured["leaderboard"] = found.beside(measured["leaderboard"])
        return cls(
            **measured,
            drawn=cells.drawn_table(results),
            agreement=agreement.agreement_table(results),
            detectable=lines.detectable(study, suite),
            protocols=repeated,
            metrics=found.metrics,
        )

    @property
    def several(self) -> bool:
        """Return whether there is more than one task."""
        return self.leaderboard["task"].nunique() > 1

    @property
    def files(self) -> dict[str, bytes]:
        """Return the tables as files by name."""
        names = [field.name for field in fields(self) if field.name in OF_ROWS or field.name in OF_CELLS]
        names.remove("trajectories")
        named = {f"{n}.csv": csv(getattr(self, n)) for n in names if self._told(n)}
        return named | {"trajectories.parquet": _parquet(self.trajectories)}

    def _told(self, name: str) -> bool:
        """Return whether a table has something to say."""
        return len(getattr(self, name)) > 0 if name in VARIED else self.several or name not in SEVERAL


def _labelled(table: pd.DataFrame) -> pd.DataFrame:
    # A domain may be a folder; where it lies on a machine is nobody's business.
    return table.assign(**{end: table[end].map(domain_label) for end in ("source", "target")})


def csv(table: pd.DataFrame) -> bytes:
    """Return a table as the bytes of a CSV file, numbers rounded."""
    return table.round(DECIMALS).to_csv(index=False).encode("utf-8", "replace")


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()
