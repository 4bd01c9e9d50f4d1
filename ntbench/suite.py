"""Suites: frozen, versioned grids of tasks, defenses, attacks, budgets and seeds, read from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from ntbench.errors import UserError, unknown
from ntbench.types import (
    BASELINES,
    CLASSIFICATION,
    FILE,
    Arch,
    Grown,
    Mask,
    ObjectiveSpec,
    Precision,
    Recipe,
    Selection,
    Task,
    Training,
)


class PaperSetting(Grown):
    """The attack that a defense's own paper evaluates with, by its label in the suite.

    `scratch` is what the paper trains from scratch by, the same attack where it is empty.
    """

    later = frozenset({"scratch"})

    attack: str
    mask: Mask = "dense"
    scratch: str = ""


class Protocol(Recipe):
    """How a paper runs its attack: for so many passes, until `patience` passes bring nothing, and what it reports."""

    epochs: int = Field(ge=1)
    select: Selection = "last"
    patience: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _watches(self) -> Protocol:
        if self.patience and self.select == "last":
            raise ValueError("patience needs a score to wait for; add select = 'best val' or 'best test'")
        return self


class Entry(Recipe):
    """One method with its hyper-parameters, or the product of the value lists in `grid`.

    The label is a format string over the parameters.
    """

    name: str
    label: str = ""
    params: dict[str, Any] = {}
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}

    def variants(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the (label, parameters) pairs that this entry stands for.

        Raises ValueError on a label that its parameters cannot fill.
        """
        points = (dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values()))
        full = [self.params | point for point in points]
        try:
            return [((self.label or self.name).format(**params), params) for params in full]
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"label {self.label!r} cannot be filled ({type(error).__name__}: {error}); "
                f"use {', '.join(f'{{{name}}}' for name in full[0]) or 'plain text'}"
            ) from None


Files = Annotated[tuple[str, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)]


class DefenseEntry(Entry, Grown):
    """Rows of the table: a defense, its hyper-parameters and its paper's attack; or a release that comes as a file.

    `release` is a file of weights, or one a seed of the same defense, and `undefended` the same without protection.
    `source_accuracy` is what their owner states, as a fraction.
    """

    later = frozenset({"release", "undefended", "source_accuracy"})

    name: str = FILE
    paper: PaperSetting | None = None
    release: Files = ()
    undefended: Files = ()
    source_accuracy: float | None = Field(default=None, gt=0, le=1)

    @property
    def rows(self) -> list[str]:
        """Return the names that stand in the tables."""
        return [label for label, _ in self.variants()]

    def at(self, seed: int, params: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters at a seed, of a release its file."""
        return params | ({"weights": _one(self.release, seed)} if self.release else {})

    @model_validator(mode="after")
    def _either(self) -> DefenseEntry:
        if (self.name == FILE) != bool(self.release):
            raise ValueError(
                f"name = {self.name!r}: give a defense's name, or `release`, the path of a file of weights"
            )
        if (self.params or self.grid) and self.release:
            raise ValueError(f"release = {self.release[0]!r} is a file, which has no `params` and no `grid`")
        if (self.undefended or self.source_accuracy) and not self.release:
            raise ValueError("undefended and source_accuracy belong to a `release`; name its file")
        return self


def _one(files: Sequence[str], seed: int) -> str:
    return files[seed % len(files)] if files else ""


class AttackEntry(Entry, Grown):
    """Attacks; they face the defenses that `against` lists by row or by registered name, and all where it lists none.

    The baselines `scratch` and `public` always count among those that are faced. Attacks with a `protocol` repeat a
    paper's: they have its budget in place of the suite's, stand beside what it published and enter no worst case.
    """

    later = frozenset({"protocol"})

    against: tuple[str, ...] = ()
    protocol: Protocol | None = None

    def faces(self, row: str, name: str) -> bool:
        """Return whether these attacks are run on a row, given with its defense's registered name."""
        return not self.against or bool({row, name} & {*self.against, *BASELINES})

    @property
    def singles(self) -> list[AttackEntry]:
        """Return one entry for each attack that this one stands for."""
        # A brace in a label is a field of a format string.
        labels = [(label.replace("{", "{{").replace("}", "}}"), params) for label, params in self.variants()]
        return [self.model_copy(update={"label": label, "params": p, "grid": {}}) for label, p in labels]


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
    ranks, gates and verdicts rest on uplift over the `axis`: sample counts, or compute.
    """

    later = frozenset({"tuned", "objective", "axis"})

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
        return Training(weights=_one(self.releases[0].undefended, seed), trained=False)

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
        places = [(label, params.get("mask", "dense")) for entry in self.attacks for label, params in entry.variants()]
        if twice := {place for place in places if places.count(place) > 1}:
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


def suite_names() -> list[str]:
    """Return the names of the built-in suites."""
    files = resources.files("ntbench.protocols").iterdir()
    return sorted(Path(file.name).stem for file in files if file.name.endswith(".toml"))


def load_suite(name: str) -> Suite:
    """Read a built-in suite by name, or any TOML file by path.

    Raises UserError that names the file, the key, the value and the remedy.
    """
    if name.endswith(".toml") or "/" in name:
        if not Path(name).is_file():
            raise UserError(f"suite file {name!r} does not exist; give the path of a TOML file or a built-in suite")
        return parse_suite(Path(name).read_text(encoding="utf-8", errors="replace"), name)
    if name not in suite_names():
        raise unknown("suite", name, suite_names())
    text = resources.files("ntbench.protocols").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return parse_suite(text, f"{name}.toml")


def parse_suite(text: str, origin: str) -> Suite:
    """Parse a suite's TOML; the origin names it in errors."""
    try:
        suite = Suite.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{origin}: not valid TOML: {error}") from None
    except ValidationError as error:
        raise explained(error, origin) from None
    if suite.dangling:
        raise UserError("\n".join(f"{origin}: {problem}" for problem in suite.dangling))
    return suite


def explained(error: ValidationError, origin: str) -> UserError:
    """Return what is wrong with a suite, a line a mistake, each with the key, the value and the remedy."""
    return UserError("\n".join(f"{origin}: {_explain(item)}" for item in _own(error.errors())))


def _own(mistakes: Sequence[Any]) -> list[Any]:
    """Return the mistakes without those that follow from others: a list is not too short for want of a sound item."""
    places = [item["loc"] for item in mistakes]

    def follows(item: Any) -> bool:
        inner = (place for place in places if len(place) > len(item["loc"]))
        return item["type"] == "too_short" and any(place[: len(item["loc"])] == item["loc"] for place in inner)

    return [item for item in mistakes if not follows(item)]


def _explain(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{key} = {item['input']!r}: unknown key; remove it or correct its spelling"
    if item["type"] == "missing":
        return f"{key}: missing; add it"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{key} = {item['input']!r}: {message}" if key else message
