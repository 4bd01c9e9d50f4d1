"""Stored results read fast: what thousands of rows have in common is built once and shared by them."""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json

from ntbench.types import Arch, Budget, MethodSpec, Protection, Provenance, Result, Task, Training

SHARED: dict[str, type[BaseModel]] = {"protection": Protection, "provenance": Provenance}
SHARED_OF_CELLS: dict[str, type[BaseModel]] = {
    "task": Task,
    "arch": Arch,
    "pretrain": Training,
    "defense": MethodSpec,
    "attack": MethodSpec,
    "budget": Budget,
}


def checksum(key: str, status: str, body: str) -> str:
    """Return 16 hex digits of the SHA-256 of a row, which tell a damaged one."""
    return hashlib.sha256(f"{key}\n{status}\n{body}".encode()).hexdigest()[:16]


class Reader:
    """Turns rows into results."""

    def __init__(self) -> None:
        """Start with nothing to share."""
        self._held: dict[tuple[str, bytes], BaseModel] = {}

    def read(self, key: str, body: str) -> Result:
        """Return the result of a body; raises ValueError where it is none of this schema."""
        facts = from_json(body, cache_strings="keys")
        if isinstance(facts, dict):
            self._share(facts, SHARED)
            if isinstance(facts.get("cell"), dict):
                self._share(facts["cell"], SHARED_OF_CELLS)
        result = Result.model_validate(facts)
        # A row's checksum covers its key, so that nobody need work it out again.
        result.cell.__dict__["key"] = key
        return result

    def _share(self, facts: dict[str, Any], parts: dict[str, type[BaseModel]]) -> None:
        for name, kind in parts.items():
            value = facts.get(name)
            if isinstance(value, dict):
                facts[name] = self._once(name, value, kind.model_validate)

    def _once(self, name: str, value: dict[str, Any], build: Callable[[Any], BaseModel]) -> BaseModel:
        mark = (name, marshal.dumps(value, 2))
        held = self._held.get(mark)
        if held is None:
            held = self._held[mark] = build(value)
        return held
