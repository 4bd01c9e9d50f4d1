"""Metrics by registration: what those that somebody brings give for every row, as columns beside the leaderboard's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import pandas as pd

from ntbench.errors import UserError
from ntbench.measure.board import COLUMNS, ends
from ntbench.measure.choice import choose
from ntbench.measure.intervals import UNKNOWN, Interval, t_interval
from ntbench.measure.lines import ROW
from ntbench.measure.standing import Standing, Study
from ntbench.metric import LONGEST, Answer, Array, Better, Metric, Row, plain
from ntbench.registry import registry
from ntbench.sources import source_file
from ntbench.types import with_mask

Record = dict[str, Any]
Metrics = tuple[type[Metric], ...]


@dataclass(frozen=True, eq=False)
class Registered:
    """Metrics, and what they give for the rows of a study."""

    metrics: Metrics = ()
    table: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=ROW))

    def beside(self, board: pd.DataFrame) -> pd.DataFrame:
        """Return a leaderboard with the columns of the metrics behind its own, which stay as they are."""
        return board.merge(self.table, how="left", on=ROW) if self.metrics else board


def column_names(name: str) -> tuple[str, ...]:
    """Return the names of a metric's columns: the number, the ends of its interval, and what went wrong."""
    return tuple(f"{name}{end}" for end in ("", "_low", "_high", "_error"))


def known() -> Metrics:
    """Return the metrics of this process by name.

    Raises UserError on one whose columns are there already, and on one that does not say what is better.
    """
    found: Metrics = tuple(registry.of_others("metric"))
    taken = dict.fromkeys(COLUMNS, "a column of the leaderboard")
    for metric in found:
        if getattr(metric, "better", None) not in get_args(Better):
            said = f"better={getattr(metric, 'better', None)!r}"
            raise UserError(f"metric {metric.name!r} of {source_file(metric)}: {said}; set it to 'higher' or 'lower'")
        for column in column_names(metric.name):
            if column in taken:
                said = f"metric {metric.name!r} of {source_file(metric)} would have the column {column!r}"
                raise UserError(f"{said}, which is {taken[column]}; rename it")
            taken[column] = f"one of metric {metric.name!r}"
    return found


def measured(study: Study, metrics: Metrics) -> Registered:
    """Return what metrics give for every row of a study; where one fails, `_error` says why in place of a number."""
    if not metrics:
        return Registered()
    standings = list(study.standings)
    asked = [(k, row_of(standing)) for k, standing in enumerate(standings) if standing.gain.seeds]
    records: list[Record] = [dict(zip(ROW, standing.place, strict=True)) for standing in standings]
    for metric in metrics:
        empty = dict(zip(column_names(metric.name), (np.nan, np.nan, np.nan, ""), strict=True))
        for record in records:
            record |= empty
        answers = metric.each([row for _, row in asked])
        for (k, row), answer in zip(asked, answers, strict=True):
            records[k] |= _columns(metric, row, answer)
    return Registered(
        metrics, pd.DataFrame(records, columns=[*ROW, *(c for m in metrics for c in column_names(m.name))])
    )


def interval(found: Any, seeds: int) -> Interval:
    """Return a number a seed as their mean with its ends, and a single number without; unknown for None.

    Raises ValueError on numbers of another count, and on those that are not finite.
    """
    if found is None:
        return UNKNOWN
    numbers: Array = np.asarray(plain(found))
    if numbers.shape not in ((), (seeds,)):
        raise ValueError(f"gives numbers of shape {numbers.shape}; return one, or one for each of {seeds} seeds")
    if not np.isfinite(numbers).all():
        worst = numbers[~np.isfinite(numbers)][0]
        raise ValueError(f"gives {worst}; return None where the metric does not apply to the row")
    return t_interval(numbers) if numbers.ndim else Interval(float(numbers), np.nan, np.nan)


def row_of(standing: Standing) -> Row:
    """Return what a metric sees of a row."""
    curves, found, release = standing.curves, standing.gain, standing.row.release
    seeds = list(found.seeds)
    none = standing.field.none_pool(standing.row)
    unprotected = np.full(found.choice.score.shape, np.nan) if none is None else choose(curves, none.all).score
    attacks = [a for _, a in standing.pool.release]
    labels = [(curves.attacks[a].label, curves.attacks[a].mask) for a in attacks]
    place: Record = dict(zip(ROW, standing.place, strict=True))
    protected: Record = {name: _protected(standing, seeds, name) for name in PROTECTED}
    return Row(
        **place | protected,
        counts=np.array(curves.counts),
        seeds=np.array([curves.seeds[s] for s in seeds]),
        attacker=found.choice.score[:, seeds],
        release=found.own.score[:, seeds],
        baseline=found.baseline.score[:, seeds],
        unprotected=unprotected[:, seeds],
        attacks=tuple(with_mask(*label) for label in labels),
        budgets=curves.end_steps,
        scores=curves.grid.test[release][attacks][:, :, seeds],
    )


PROTECTED = (
    *("source_before", "source_after", "zero_shot", "sparsity"),
    *("protect_steps", "protect_seconds", "protect_flops"),
)
"""What a row tells of the protection at each seed."""


def _protected(standing: Standing, seeds: Sequence[int], name: str) -> Array:
    held = (standing.curves.protections.get((standing.row.release, s)) for s in seeds)
    values = (getattr(protection, name) if protection else None for protection in held)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _columns(metric: type[Metric], row: Row, answer: Answer) -> Record:
    name, error = metric.name, answer.error
    if not error:
        try:
            return ends(name, interval(answer.found, len(row.seeds)))
        except (TypeError, ValueError) as wrong:
            error = str(wrong)
    return {f"{name}_error": error[:LONGEST]}
