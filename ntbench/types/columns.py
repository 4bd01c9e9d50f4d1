"""Many results as columns: what they have in common is held once, and trajectories lie behind one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from ntbench.types.recipes import Cell
from ntbench.types.results import Result
from ntbench.types.trajectory import Trajectory
from ntbench.types.words import SETTLED

NUMBERS: dict[str, TypeAdapter[Any]] = {
    "samples": TypeAdapter(list[Annotated[int, Field(ge=1)]]),
    "seed": TypeAdapter(list[Annotated[int, Field(ge=0)]]),
    "paid": TypeAdapter(list[int]),
    "seconds": TypeAdapter(list[float]),
    "peak_mb": TypeAdapter(list[float]),
}
"""What differs from row to row."""
RUNS: dict[str, TypeAdapter[Any]] = {
    **dict.fromkeys(("step", "samples", "flops"), TypeAdapter(list[int])),
    **dict.fromkeys(("seconds", "val", "test"), TypeAdapter(list[float])),
    "own": TypeAdapter(list[float | None]),
}
"""The numbers of trajectories."""
OF_CELLS = tuple(name for name in Cell.model_fields if name not in NUMBERS)
OF_RESULTS = tuple(n for n in Result.model_fields if n not in (*NUMBERS, "schema_version", "cell", "trajectory"))
_FIELDS = [Cell.model_fields[name] for name in OF_CELLS] + [Result.model_fields[name] for name in OF_RESULTS]
PARTS: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(field.rebuild_annotation()) for name, field in zip((*OF_CELLS, *OF_RESULTS), _FIELDS, strict=True)
}
"""What rows have in common."""


class Texts(NamedTuple):
    """Many ASCII texts in one piece of memory: text i is `data[starts[i]:starts[i + 1]]`."""

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]

    def at(self, i: int) -> str:
        """Return one text."""
        return self.data[self.starts[i] : self.starts[i + 1]].tobytes().decode("ascii")

    def take(self, rows: NDArray[np.intp]) -> Texts:
        """Return some of the texts."""
        starts = bounds(np.diff(self.starts)[rows])
        return Texts(self.data[within(self.starts, rows)], starts)

    def listed(self) -> list[str]:
        """Return all of them."""
        text, ends = self.data.tobytes().decode("ascii"), self.starts.tolist()
        return [text[a:b] for a, b in pairwise(ends)]


class Factor(NamedTuple):
    """A column of few values: row i holds `values[codes[i]]`."""

    codes: NDArray[np.signedinteger[Any]]
    values: tuple[Any, ...]

    def coded(self, told: Callable[[Any], Any], axis: Sequence[Any]) -> NDArray[np.intp]:
        """Return the place on an axis of what is told of each row's value."""
        place = {value: k for k, value in enumerate(axis)}
        # A value that no row holds need not be on the axis.
        places = np.array([place.get(told(value), -1) for value in self.values], dtype=np.intp)
        return np.asarray(places[self.codes])

    def firsts(self) -> dict[int, int]:
        """Return the first row of each code that any row holds, in the order of these rows."""
        codes, first = np.unique(self.codes, return_index=True)
        order = np.argsort(first)
        return dict(zip(codes[order].tolist(), first[order].tolist(), strict=True))

    @property
    def present(self) -> list[Any]:
        """Return the values that any row holds, in the order of these rows."""
        return [self.values[code] for code in self.firsts()]

    def take(self, rows: NDArray[np.intp]) -> Factor:
        """Return some of the rows."""
        return Factor(self.codes[rows], self.values)


@dataclass(frozen=True, eq=False)
class Columns(Sequence[Result]):
    """Results in their order, as a sequence whose items are built when they are looked at.

    `parts` are by their names in a cell or a result. Row i's trajectory is at `starts[i]` up to `starts[i + 1]` in the
    columns of `runs`, where a missing `own` is NaN, and in `correct`.
    """

    keys: NDArray[np.str_]
    parts: Mapping[str, Factor]
    numbers: Mapping[str, NDArray[Any]]
    starts: NDArray[np.int64]
    runs: Mapping[str, NDArray[Any]]
    correct: Texts

    def __len__(self) -> int:
        """Return the number of results."""
        return len(self.keys)

    @overload
    def __getitem__(self, at: int) -> Result: ...

    @overload
    def __getitem__(self, at: slice) -> Columns: ...

    def __getitem__(self, at: int | slice) -> Result | Columns:
        """Return one result, or columns of some."""
        if isinstance(at, slice):
            return self.take(np.arange(len(self))[at])
        if not -len(self) <= at < len(self):
            raise IndexError(f"{at} of {len(self)} results")
        at %= len(self)
        part = {name: factor.values[factor.codes[at]] for name, factor in self.parts.items()}
        number = {name: column[at].item() for name, column in self.numbers.items()}
        cell = Cell.model_construct(
            **{name: part[name] for name in OF_CELLS}, samples=number.pop("samples"), seed=number.pop("seed")
        )
        # A row's checksum covers its key, so that nobody need work it out again.
        cell.__dict__["key"] = str(self.keys[at])
        parts = {name: part[name] for name in OF_RESULTS}
        return Result.model_construct(**parts, **number, cell=cell, trajectory=self._trajectory(at))

    def _trajectory(self, at: int) -> Trajectory:
        begin, end = self.starts[at : at + 2].tolist()
        run: dict[str, Any] = {name: tuple(column[begin:end].tolist()) for name, column in self.runs.items()}
        run["own"] = tuple(None if value != value else value for value in run["own"])
        return Trajectory.model_construct(**run, correct=tuple(self.correct.at(i) for i in range(begin, end)))

    def __eq__(self, other: object) -> bool:
        """Return whether another sequence holds equal results in the same order."""
        if not isinstance(other, Sequence) or len(other) != len(self):
            return False
        return all(one == another for one, another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def value(self, name: str, row: int) -> Any:
        """Return what a row holds of one of the parts."""
        factor = self.parts[name]
        return factor.values[factor.codes[row]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Return how many ends each trajectory has."""
        return np.diff(self.starts)

    def points(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """Return the places of some rows' trajectories in `runs` and `correct`, row by row."""
        return within(self.starts, rows)

    def take(self, rows: NDArray[np.intp]) -> Columns:
        """Return some of the rows, in this order."""
        if len(rows) == len(self) and bool((rows == np.arange(len(self))).all()):
            return self
        points = self.points(rows)
        return Columns(
            keys=self.keys[rows],
            parts={name: factor.take(rows) for name, factor in self.parts.items()},
            numbers={name: column[rows] for name, column in self.numbers.items()},
            starts=bounds(self.lengths[rows]),
            runs={name: column[points] for name, column in self.runs.items()},
            correct=self.correct.take(points),
        )

    def where(self, name: str, keeps: Callable[[Any], bool]) -> Columns:
        """Return the rows whose value of one of the parts is kept."""
        return self.take(np.flatnonzero(np.array([*map(keeps, self.parts[name].values)], bool)[self.parts[name].codes]))

    @property
    def failed(self) -> Columns:
        """Return the rows that failed; what is inapplicable did not."""
        return self.where("status", lambda status: status not in SETTLED)

    def pairs(self, one: str, other: str) -> Iterator[tuple[Any, Any]]:
        """Yield the values of two parts that stand together in any row, in the order of these rows."""
        for row in firsts(self.parts[one].codes, self.parts[other].codes):
            yield self.value(one, row), self.value(other, row)

    def with_part(self, name: str, factor: Factor) -> Columns:
        """Return the same rows with other values of one part."""
        return replace(self, parts={**self.parts, name: factor})


def firsts(*columns: NDArray[Any]) -> list[int]:
    """Return the first row of each combination of numbers that are not negative, in the order of the rows."""
    code = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        code = code * (int(column.max(initial=0)) + 1) + column
    return sorted(np.unique(code, return_index=True)[1].tolist())


def bounds(lengths: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Return where pieces of these lengths begin that lie behind one another, and where the last ends."""
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def within(starts: NDArray[np.int64], rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return the places of everything in some of the pieces that begin at `starts`, piece by piece."""
    begin = starts[rows]
    lengths = starts[1:][rows] - begin
    ours = bounds(lengths)
    return np.arange(ours[-1]) + np.repeat(begin - ours[:-1], lengths)
