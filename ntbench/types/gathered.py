"""From rows to columns: what arrives one by one is packed in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from ntbench.types.columns import NUMBERS, OF_CELLS, OF_RESULTS, PARTS, RUNS, Columns, Factor, Texts, bounds
from ntbench.types.results import Result

CHUNK = 1_000
"""Rows that wait as Python's objects, which take ten times the memory of columns."""
KINDS: dict[str, type[Any]] = {
    **dict.fromkeys(("samples", "seed", "paid", "step", "flops"), np.int64),
    **dict.fromkeys(("seconds", "peak_mb", "val", "test", "own"), np.float64),
}
_TEXTS = TypeAdapter(list[str])
Piece = tuple[Any, ...]


class Builder:
    """Gathers rows, which hold one piece of every kind; a piece is the values of some parts, and shared by rows."""

    def __init__(self, kinds: Mapping[str, tuple[str, ...]]) -> None:
        """Take which parts a piece of each kind holds."""
        self._kinds = kinds
        self._pieces: dict[str, list[Piece]] = {kind: [] for kind in kinds}
        self._codes: dict[tuple[str, Any], int] = {}
        self._waiting: list[tuple[Any, ...]] = []
        self._chunks: list[dict[str, NDArray[Any]]] = []

    def code(self, kind: str, mark: Any) -> int | None:
        """Return the code of a piece that was kept under a mark, None where there is none."""
        return self._codes.get((kind, mark))

    def keep(self, kind: str, mark: Any, piece: Piece) -> int:
        """Keep a new piece under a mark and return its code."""
        self._pieces[kind].append(piece)
        code = self._codes[kind, mark] = len(self._pieces[kind]) - 1
        return code

    def piece(self, kind: str, code: int) -> Piece:
        """Return a piece by its code."""
        return self._pieces[kind][code]

    def add(self, key: str, codes: Iterable[int], numbers: Iterable[Any], run: Iterable[Sequence[Any]]) -> None:
        """Add a row: a code a kind, numbers in the order of `NUMBERS`, and of `RUNS` with `correct` behind.

        Raises ValueError where earlier rows hold anything else than what belongs into their columns.
        """
        self._waiting.append((key, *codes, *numbers, *run))
        if len(self._waiting) >= CHUNK:
            self._pack()

    def columns(self) -> Columns:
        """Return all rows as columns; raises ValueError as `add` does."""
        self._pack()
        return Columns(
            keys=self._column("key", np.str_),
            parts={name: factor for kind in self._kinds for name, factor in self._factors(kind)},
            numbers={name: self._column(f"number {name}", KINDS[name]) for name in NUMBERS},
            starts=bounds(self._column("lengths", np.int64)),
            runs={name: self._column(f"run {name}", KINDS[name]) for name in RUNS},
            correct=Texts(self._column("text", np.uint8), bounds(self._column("widths", np.int64))),
        )

    def _column(self, name: str, kind: type[Any]) -> NDArray[Any]:
        found = [chunk.pop(name) for chunk in self._chunks]
        return np.concatenate(found) if found else np.empty(0, dtype=kind)

    def _factors(self, kind: str) -> Iterable[tuple[str, Factor]]:
        codes = self._column(f"piece {kind}", np.int32)
        for k, name in enumerate(self._kinds[kind]):
            yield name, merged(name, codes, [piece[k] for piece in self._pieces[kind]])

    def _pack(self) -> None:
        if not self._waiting:
            return
        names = ["key", *(f"piece {kind}" for kind in self._kinds), *(f"number {name}" for name in NUMBERS)]
        names += [f"run {name}" for name in (*RUNS, "correct")]
        held = dict(zip(names, zip(*self._waiting, strict=True), strict=True))
        self._waiting = []
        chunk = {"key": np.array(held["key"], dtype=np.str_)}
        chunk |= {name: np.array(held[name], dtype=np.int32) for name in names if name.startswith("piece")}
        for name, adapter in NUMBERS.items():
            given = adapter.validate_python(list(held[f"number {name}"]))
            chunk[f"number {name}"] = np.array(given, dtype=KINDS[name])
        self._chunks.append(chunk | _trajectories({name: held[f"run {name}"] for name in (*RUNS, "correct")}))


def _trajectories(held: Mapping[str, Sequence[Sequence[Any]]]) -> dict[str, NDArray[Any]]:
    try:
        lengths = [[*map(len, column)] for column in held.values()]
    except TypeError:
        raise ValueError("a column of a trajectory is no list") from None
    if any(one != lengths[0] for one in lengths):
        raise ValueError("the columns of a trajectory differ in length")
    chunk: dict[str, NDArray[Any]] = {"lengths": np.array(lengths[0], dtype=np.int64)}
    for name, adapter in RUNS.items():
        given = adapter.validate_python([*chain.from_iterable(held[name])])
        chunk[f"run {name}"] = np.array(given, dtype=KINDS[name])
    texts = _TEXTS.validate_python([*chain.from_iterable(held["correct"])])
    chunk["text"] = np.frombuffer("".join(texts).encode("ascii"), dtype=np.uint8)
    return chunk | {"widths": np.array([*map(len, texts)], dtype=np.int64)}


def merged(name: str, codes: NDArray[Any], values: Sequence[Any]) -> Factor:
    """Return a factor in which every value of a part stands once, in as small a type as holds its codes."""
    place: dict[bytes, int] = {}
    kept: list[Any] = []
    code = np.empty(len(values), dtype=np.int64)
    for k, value in enumerate(values):
        code[k] = place.setdefault(PARTS[name].dump_json(value), len(place))
        if code[k] == len(kept):
            kept.append(value)
    small = np.min_scalar_type(-max(len(kept), 1))
    return Factor(code.astype(small)[codes], tuple(kept))


def columns_of(results: Iterable[Result]) -> Columns:
    """Return results as columns, those that are columns already as they are."""
    if isinstance(results, Columns):
        return results
    builder = Builder({name: (name,) for name in PARTS})
    for result in results:
        cell, run = result.cell, result.trajectory
        values = [getattr(cell, name) for name in OF_CELLS] + [getattr(result, name) for name in OF_RESULTS]
        codes = [_code(builder, name, value) for name, value in zip(PARTS, values, strict=True)]
        numbers = (cell.samples, cell.seed, result.paid, result.seconds, result.peak_mb)
        builder.add(cell.key, codes, numbers, (*(getattr(run, name) for name in RUNS), run.correct))
    return builder.columns()


def _code(builder: Builder, name: str, value: Any) -> int:
    # The builder holds every object whose identity is a mark.
    mark = value if isinstance(value, str) else id(value)
    code = builder.code(name, mark)
    return builder.keep(name, mark, (value,)) if code is None else code
