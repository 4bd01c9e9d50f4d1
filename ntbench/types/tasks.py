"""Tasks: domains and sample counts, and what is learnt of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import PurePath
from typing import Any

from pydantic import (
    Field,
    model_validator,
)

from ntbench.types.words import (
    Grown,
    Recipe,
    Rehearsal,
)


class Level(Recipe):
    """One sample count, and the baseline there: its plateau (accuracy), and the steps that it takes to 90% of it.

    Both are measured once, on other seeds than those they judge, and frozen; None where nobody has measured yet.
    """

    samples: int = Field(ge=1)
    t90: float | None = Field(default=None, gt=0)
    plateau: float | None = Field(default=None, gt=0, le=1)


class Task(Grown):
    """One (source, target) pair of domains at one image size in pixels, and the sample counts of its attackers.

    Of each domain at most `train_samples` and, of its validation and its test split, `scored_samples` each are used.
    `defended` are the domains that the defender is given, the target unless it is told otherwise. Of the training
    images of these and of the target, the defender holds a share of `defender_share`, its attackers the rest; with
    `shared` both hold all of them. A `rehearsal` is the task as one defender plays it with the images that it holds.
    """

    later = frozenset({"rehearsal"})

    source: str
    target: str
    label: str = ""
    image_size: int = Field(default=16, ge=8, le=512)
    train_samples: int | None = Field(default=None, ge=1)
    scored_samples: int | None = Field(default=None, ge=1)
    defended: tuple[str, ...] | None = None
    defender_share: float = Field(default=0.5, gt=0, lt=1)
    shared: bool = False
    rehearsal: Rehearsal | None = None
    levels: tuple[Level, ...] = Field(min_length=2)

    @property
    def title(self) -> str:
        """Return the pair as people read it; no path of a machine is part of it."""
        return self.label or f"{domain_label(self.source)} to {domain_label(self.target)}"

    @property
    def name(self) -> str:
        """Return the pair as it stands in tables and file names."""
        return _plain_name(self.label or f"{domain_label(self.source)}-{domain_label(self.target)}")

    @property
    def guarded(self) -> tuple[str, ...]:
        """Return the domains that the defender is given."""
        return (self.target,) if self.defended is None else self.defended

    @property
    def domains(self) -> tuple[str, ...]:
        """Return every domain that has a part in the task, its source first."""
        return tuple(dict.fromkeys((self.source, self.target, *self.guarded)))

    @property
    def data(self) -> dict[str, Any]:
        """Return what decides who holds which images."""
        return self.model_dump(mode="json", exclude={"label", "levels"})

    @model_validator(mode="after")
    def _rising(self) -> Task:
        counts = [level.samples for level in self.levels]
        if counts != sorted(set(counts)):
            raise ValueError(f"levels: the samples {counts} must rise strictly")
        return self


@lru_cache(maxsize=1024)
def _plain_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)


@lru_cache(maxsize=1024)
def domain_label(name: str) -> str:
    """Return a domain's name without the folder that a path lies in."""
    return PurePath(name.rpartition(":")[2]).name


class ObjectiveSpec(Recipe):
    """What a task learns, and how it is scored: the name of an objective, and the parameters that it is built with.

    A parameter that is a table has an entry for each domain of which something is known.
    """

    name: str = "classification"
    params: dict[str, Any] = {}

    @property
    def tables(self) -> dict[str, dict[str, Any]]:
        """Return the parameters that tell domains apart."""
        return {name: value for name, value in self.params.items() if isinstance(value, dict)}

    def on(self, domains: Iterable[str]) -> ObjectiveSpec:
        """Return what is said of these domains alone: a cell does not change by what is known of others."""
        held = {name: {d: table[d] for d in domains if d in table} for name, table in self.tables.items()}
        return self.model_copy(update={"params": self.params | held})

    def joined(self, other: ObjectiveSpec) -> ObjectiveSpec | None:
        """Return what both say of domains, None where they differ in one that both know or in anything else."""
        mine, theirs = self._with(other), other._with(self)
        return mine if mine == theirs else None

    def _with(self, other: ObjectiveSpec) -> ObjectiveSpec:
        tables = {name: other.tables.get(name, {}) | self.tables.get(name, {}) for name in self.tables | other.tables}
        return self.model_copy(update={"params": self.params | tables})

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


CLASSIFICATION = ObjectiveSpec()
