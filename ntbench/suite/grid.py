"""A suite: a frozen, versioned grid of tasks, defenses, attacks, budgets and seeds."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ntbench.errors import unknown
from ntbench.suite.entries import AttackEntry, DefenseEntry, PaperSetting, Planned, file_of
from ntbench.types import (
    BASELINES,
    CLASSIFICATION,
    Arch,
    Grown,
    ObjectiveSpec,
    Precision,
    Recipe,
    Task,
    Training,
)


class Limits(Recipe):
    """What one cell may take before it is stopped."""

    cell_seconds: float = Field(default=600, gt=0)
    protect_seconds: float = Field(default=7200, gt=0)
    memory_mb: int = Field(default=8192, ge=512)


class Suite(Grown):
    """A frozen, versioned grid.

    `horizon` is the largest budget of a run in units of T90, `scored` the ratio between budgets that are scored;
    attackers of the track `source` own a share of `source_share` of the source's training images. With `own` every
    attack is run once more as an attacker who chooses by a fifth of its samples; `default` is what it takes where that
    leaves under two a class. A row whose loss of source accuracy is above `max_drop` is unusable. With `tuned` every
    defense has so many trials, on data of its own, to find its hyper-parameters for a task before it protects. Leak,
    ranks, gates and verdicts rest on uplift over the `axis`: sample counts, or compute. `scoring` is the precision of
    validation scores, by which attackers choose; test scores are exact.
    """

    later = frozenset({"tuned", "objective", "axis", "scoring"})

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    version: int = Field(ge=1)
    summary: str
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    horizon: float = Field(default=8.0, ge=1, le=1024)
    scored: float = Field(default=2.0, gt=1, le=2)
    source_share: float = Field(default=0.1, gt=0, le=1)
    max_drop: float = Field(default=0.02, gt=0, lt=1)
    own: bool = False
    default: str = ""
    tuned: int = Field(default=0, ge=0)
    objective: ObjectiveSpec = CLASSIFICATION
    arch: Arch
    pretrain: Training = Training()
    paper: PaperSetting
    tasks: tuple[Task, ...] = Field(min_length=1)
    defenses: tuple[DefenseEntry, ...] = Field(min_length=1)
    attacks: tuple[AttackEntry, ...] = Field(min_length=1)
    precision: Precision = "float32"
    scoring: Precision = "float32"
    axis: Literal["samples", "compute"] = "samples"
    limits: Limits = Limits()

    @property
    def protocol(self) -> str:
        """Return the name and version that stand in every row."""
        return f"{self.name}-{self.version}"

    @property
    def releases(self) -> tuple[DefenseEntry, ...]:
        """Return the rows that come as files; with any, the undefended model is a file too, or is not there."""
        return tuple(entry for entry in self.defenses if entry.release)

    def start(self, seed: int) -> Training:
        """Return what the defender's model is at a seed: what `pretrain` makes, or the undefended file of a release."""
        if not self.releases:
            return self.pretrain
        return Training(weights=file_of(self.releases[0].undefended, seed), trained=False)

    def with_tasks(self, names: tuple[str, ...]) -> Suite:
        """Return the suite with some of its tasks, by name; raises UserError for a task that it lacks."""
        known = {task.name: task for task in self.tasks}
        for name in names:
            if name not in known:
                raise unknown(f"task of {self.name}", name, known)
        return self.model_copy(update={"tasks": tuple(known[name] for name in dict.fromkeys(names))})

    def paper_setting(self, row: str) -> PaperSetting:
        """Return the paper's attack on one row; the suite's own where the row states none."""
        return next((d.paper for d in self.defenses if d.paper and row in d.rows), self.paper)

    @field_validator("seeds", "tasks")
    @classmethod
    def _distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len({str(value) for value in values}) < len(values):
            raise ValueError("holds the same value twice; remove one")
        return values

    @field_validator("tasks")
    @classmethod
    def _named_apart(cls, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        names = [task.name for task in tasks]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two tasks are named {min(twice)!r}; give each its own `label`")
        return tasks

    @model_validator(mode="after")
    def _labels(self) -> Suite:
        rows = [row for entry in self.defenses for row in entry.rows]
        if len(set(rows)) < len(rows):
            raise ValueError(f"defenses: two rows share a label in {rows}; give each its own `label`")
        places = Counter((label, mask) for _, label, mask in self.planned)
        if twice := {place for place, times in places.items() if times > 1}:
            raise ValueError(f"attacks: several share the label and mask {min(twice)}; name what differs in `label`")
        return self

    @model_validator(mode="after")
    def _starts(self) -> Suite:
        if not self.releases and "pretrain" not in self.model_fields_set:
            raise ValueError("pretrain: missing; add it")
        if not (self.pretrain.trained or self.pretrain.weights):
            raise ValueError("pretrain: trained = false leaves a random model; name `weights`, a file")
        if self.releases and self.pretrain != Training():
            raise ValueError("pretrain: a suite with a `release` trains no model of its own; leave it out")
        if len({entry.undefended for entry in self.releases}) > 1:
            raise ValueError("defenses: `undefended` differs between releases; give such releases a suite each")
        for entry in self.defenses if self.releases else ():
            if not (entry.release or entry.name in BASELINES or self.releases[0].undefended):
                raise ValueError(f"defenses: {entry.name!r} starts from undefended weights; name them: `undefended`")
            if "origin" in {**entry.params, **entry.grid}:
                raise ValueError("defenses: origin: a suite with a `release` trains nothing; give `weights`, a file")
        return self

    @property
    def planned(self) -> list[Planned]:
        """Return every attack that is planned, in the order of the suite."""
        variants = ((entry, label, params) for entry in self.attacks for label, params in entry.variants())
        return [(e, label, "keep" if params.get("mask") == "keep" else "dense") for e, label, params in variants]

    @property
    def dangling(self) -> list[str]:
        """Return which rows and attack labels are named that the suite lacks; a part of a suite may lack some."""
        rows = {row for entry in self.defenses for row in entry.rows} | {entry.name for entry in self.defenses}
        labels = {label for entry in self.attacks for label, _ in entry.variants()}
        settings = [self.paper, *(d.paper for d in self.defenses if d.paper)]
        chosen = [(f"paper.{key}", getattr(s, key) or s.attack) for s in settings for key in ("attack", "scratch")]
        chosen += [("default", self.default)] if self.own else []
        against = [name for entry in self.attacks for name in entry.against]
        return [f"attacks: against: {unknown('row', name, rows)}" for name in against if name not in rows] + [
            f"{key}: {unknown('attack label', label, labels)}" for key, label in chosen if label not in labels
        ]
