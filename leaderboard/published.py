"""A published board: the suite, its files, and the table that anybody can work out from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isinf
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from ntbench.errors import UserError
from ntbench.measure.board import LATER, leaderboard_table
from ntbench.measure.ranking import by_leak
from ntbench.measure.standing import Study
from ntbench.suite import Suite
from ntbench.types import Result, Track

from .rebuilt import results_of
from .schema import ROW, SUITE, Published, PublishedSuite, read

DECIMALS = 6
Record = dict[str, Any]


@dataclass(frozen=True)
class Board:
    """One suite and its published files by their place below the results folder.

    `told` are the cells of files as results, of those files that somebody read already.
    """

    suite: Suite
    files: Mapping[Path, Published]
    told: Mapping[Path, Sequence[Result]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Board:
        """Read a suite's folder; raises UserError with one line per mistake."""
        suite = read(folder / SUITE, PublishedSuite).suite
        found = [read(path, Published) for path in sorted(folder.glob("*/*.json"))]
        return cls(suite, {file.place: file for file in found})

    @cached_property
    def results(self) -> list[Result]:
        """Return every cell of every file."""
        return [r for place, file in self.files.items() for r in self.told.get(place) or results_of(file)]

    @cached_property
    def study(self) -> Study:
        """Return where every row stands, worked out from the cells."""
        return Study(self.results, self.suite)

    @cached_property
    def rows(self) -> dict[Path, tuple[Record, ...]]:
        """Return the rows of every file as its cells, and those of the others, give them."""
        table = leaderboard_table(self.study, self.suite)
        found: dict[Path, list[Record]] = {place: [] for place in self.files}
        places = {(file.task.name, file.defense.label): place for place, file in self.files.items()}
        for record in table.to_dict("records"):
            row = {name: plain(record[name]) for name in ROW}
            row = {name: value for name, value in row.items() if value is not None or name not in LATER}
            found[places[record["task"], record["defense"]]].append(row)
        return {place: tuple(sorted(rows, key=row_place)) for place, rows in found.items()}

    def recomputed(self) -> Board:
        """Return the board with its rows worked out again."""
        rows = self.rows
        return self.saying({place: file.model_copy(update={"rows": rows[place]}) for place, file in self.files.items()})

    def saying(self, files: Mapping[Path, Published]) -> Board:
        """Return a board of the same cells whose files say something else of them."""
        board = replace(self, files=files)
        board.__dict__["study"] = self.study
        return board

    @property
    def table(self) -> pd.DataFrame:
        """Return the published rows as one leaderboard, by task and track, the least leak first."""
        records = sorted(self._records(), key=self._order)
        table = pd.DataFrame(records, columns=["task", "defense", *ROW])
        return table.astype(dict.fromkeys(("rank", "rank_low", "rank_high"), "Int64"))

    def _records(self) -> Iterator[Record]:
        for file in self.files.values():
            for row in file.rows:
                yield {"task": file.task.name, "defense": file.defense.label} | {n: full(v) for n, v in row.items()}

    def _order(self, record: Record) -> tuple[Any, ...]:
        tasks = [task.name for task in self.suite.tasks]
        rows = [row for entry in self.suite.defenses for row in entry.rows]
        drop = record["drop_low"]
        place = (tasks.index(record["task"]), get_args(Track).index(record["track"]), drop > self.suite.max_drop)
        return (*place, *by_leak(record["leak"], record["leak_high"]), rows.index(record["defense"]), record["mask"])


def boards(folder: Path) -> list[Board]:
    """Read all boards below a results folder; raises UserError where it is missing, or a file cannot be read."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the leaderboard folder that holds `results`")
    return [Board.read(path.parent) for path in sorted(folder.glob(f"*/{SUITE}"))]


def row_place(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return which row of its file this is."""
    return (str(row["track"]), str(row["mask"]))


def plain(value: Any) -> Any:
    """Return a number of a table as JSON has it: rounded, None for none, and `inf` in words."""
    if isinstance(value, str):
        return value
    if value is None or pd.isna(value):
        return None
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    return str(float(value)) if isinf(value) else round(float(value), DECIMALS)


def full(value: Any) -> Any:
    """Return a published value as a table has it."""
    if value is None:
        return np.nan
    return {"inf": np.inf, "-inf": -np.inf}.get(value, value) if isinstance(value, str) else value


def merged(held: Suite, new: Suite) -> Suite:
    """Return a suite that has the rows and tasks of both; raises UserError where anything else differs."""
    objective = held.objective.joined(new.objective)
    grown = {"defenses", "tasks", *(["objective"] if objective else [])}
    for name in type(held).model_fields:
        if name not in grown and getattr(held, name) != getattr(new, name):
            raise UserError(
                f"{new.protocol}: its `{name}` differs from that of the published board, {getattr(new, name)} from "
                f"{getattr(held, name)}; run the published suite, or raise its version and publish all of its rows"
            )
    for task in new.tasks:
        if any(task.name == other.name and task != other for other in held.tasks):
            raise UserError(
                f"{new.protocol}: task {task.name} is not as published, with T90 and plateau; raise the version"
            )
    named = {row for entry in new.defenses for row in entry.rows}
    kept = [entry for entry in held.defenses if not named & {*entry.rows}]
    defenses, tasks = (*kept, *new.defenses), (*held.tasks, *_others(new.tasks, held.tasks))
    return held.model_copy(update={"defenses": defenses, "tasks": tasks, "objective": objective})


def _others(found: Iterable[Any], held: Iterable[Any]) -> list[Any]:
    names = {task.name for task in held}
    return [task for task in found if task.name not in names]
