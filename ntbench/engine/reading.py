"""Stored results read fast: into columns, in which what thousands of rows have in common is built once."""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from ntbench.types import Columns, Result
from ntbench.types.columns import NUMBERS, OF_CELLS, PARTS, RUNS
from ntbench.types.gathered import Builder

ALONE = {"defense": "cell", "attack": "cell", "budget": "cell", "protection": "result", "provenance": "result"}
"""Parts that are shared by other rows than all that remains, and where they stand."""
COMMON = tuple(name for name in PARTS if name not in ALONE)
OF_RUNS = (*RUNS, "correct")


def checksum(key: str, status: str, body: str) -> str:
    """Return 16 hex digits of the SHA-256 of a row, which tell a damaged one."""
    return hashlib.sha256(f"{key}\n{status}\n{body}".encode()).hexdigest()[:16]


class Reader:
    """Gathers the rows of a store."""

    def __init__(self) -> None:
        """Start without rows."""
        self._builder = Builder({"common": COMMON} | {name: (name,) for name in ALONE})

    def add(self, key: str, body: str) -> None:
        """Take a row; raises ValueError where it, or an earlier one, is none of this schema."""
        facts = from_json(body, cache_strings="keys")
        cell, run = _dict(facts, "cell"), _dict(facts, "trajectory")
        places = {"cell": cell, "result": facts}
        alone = {name: self._alone(name, places[where].pop(name, None)) for name, where in ALONE.items()}
        numbers = (cell.pop("samples", None), cell.pop("seed", None), *(facts.pop(name, 0) for name in _REST))
        columns = [run.pop(name, ()) for name in OF_RUNS]
        if run:
            raise ValueError(f"{min(run)!r} is no column of a trajectory")
        codes = (self._common(facts, cell, alone), *alone.values())
        self._builder.add(key, codes, numbers, columns)

    def columns(self) -> Columns:
        """Return all rows; raises ValueError where one is none of this schema."""
        return self._builder.columns()

    def _alone(self, name: str, value: Any) -> int:
        mark = marshal.dumps(value, 2)
        code = self._builder.code(name, mark)
        if code is None:
            code = self._builder.keep(name, mark, (PARTS[name].validate_python(value),))
        return code

    def _common(self, facts: dict[str, Any], cell: dict[str, Any], alone: Mapping[str, int]) -> int:
        mark = marshal.dumps((facts, cell), 2)
        code = self._builder.code("common", mark)
        if code is None:
            held = {name: self._builder.piece(name, code)[0] for name, code in alone.items()}
            whole = {name: held[name] for name, where in ALONE.items() if where == "cell"} | {"samples": 1, "seed": 0}
            beside = {name: held[name] for name, where in ALONE.items() if where == "result"}
            result = Result.model_validate(facts | beside | {"cell": cell | whole})
            piece = tuple(getattr(result.cell if name in OF_CELLS else result, name) for name in COMMON)
            code = self._builder.keep("common", mark, piece)
        return code


_REST = [name for name in NUMBERS if name not in ("samples", "seed")]


def _dict(facts: Any, name: str) -> dict[str, Any]:
    value = facts.pop(name, {}) if isinstance(facts, dict) else None
    if not isinstance(value, dict):
        raise ValueError(f"{name!r} is missing or none")
    return value
