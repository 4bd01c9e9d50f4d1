"""Suites: frozen, versioned grids of tasks, defenses, attacks, budgets and seeds, read from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator

from ntbench.errors import UserError, unknown
from ntbench.types import BASELINES, Arch, Mask, Precision, Recipe, Selection, Task, Training


def _added(default: Any, **bounds: Any) -> Any:
    """Return a field that suites did not have at first: where it holds its default, their content stays as it was."""
    return Field(default=default, exclude_if=lambda value: value == default, **bounds)


class PaperSetting(Recipe):
    """The attack that a defense's own paper evaluates with, by its label in the suite.

    `scratch` is what the paper trains from scratch by, the same attack where it is empty.
    """

    attack: str
    mask: Mask = "dense"
    scratch: str = _added("")


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


class DefenseEntry(Entry):
    """Rows of the table: a defense, its hyper-parameters and its paper's attack."""

    paper: PaperSetting | None = None

    @property
    def rows(self) -> list[str]:
        """Return the names that stand in the tables."""
        return [label for label, _ in self.variants()]


class AttackEntry(Entry):
    """Attacks; they face the defenses that `against` lists by row or by registered name, and all where it lists none.

    The baselines `scratch` and `public` always count among those that are faced. Attacks with a `protocol` repeat a
    paper's: they have its budget in place of the suite's, stand beside what it published and enter no worst case.
    """

    against: tuple[str, ...] = ()
    protocol: Protocol | None = _added(None)

    def faces(self, row: str, name: str) -> bool:
        """Return whether these attacks are run on a row, given with its defense's registered name."""
        return not self.against or bool({row, name} & {*self.against, *BASELINES})


class Limits(Recipe):
    """What one cell may take before it is stopped."""

    cell_seconds: float = Field(default=600, gt=0)
    protect_seconds: float = Field(default=7200, gt=0)
    memory_mb: int = Field(default=8192, ge=512)


class Suite(Recipe):
    """A frozen, versioned grid.

    `horizon` is the largest budget of a run in units of T90, `scored` the ratio between budgets that are scored;
    attackers of the track `source` own a share of `source_share` of the source's training images. With `own` every
    attack is run once more as an attacker who chooses by a fifth of its samples; `default` is what it takes where that
    leaves under two a class. A row whose loss of source accuracy is above `max_drop` is unusable.
    """

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
    arch: Arch
    pretrain: Training
    paper: PaperSetting
    tasks: tuple[Task, ...] = Field(min_length=1)
    defenses: tuple[DefenseEntry, ...] = Field(min_length=1)
    attacks: tuple[AttackEntry, ...] = Field(min_length=1)
    precision: Precision = "float32"
    limits: Limits = Limits()

    @property
    def protocol(self) -> str:
        """Return the name and version that stand in every row."""
        return f"{self.name}-{self.version}"

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
        names = {*rows, *(entry.name for entry in self.defenses)}
        for name in (name for entry in self.attacks for name in entry.against if name not in names):
            raise ValueError(f"attacks: against: {unknown('row', name, names)}")
        labels = {label for label, _ in places}
        settings = [self.paper, *(d.paper for d in self.defenses if d.paper)]
        chosen = [(f"paper.{key}", getattr(s, key) or s.attack) for s in settings for key in ("attack", "scratch")]
        for key, label in [*chosen, *([("default", self.default)] if self.own else [])]:
            if label not in labels:
                raise ValueError(f"{key}: {unknown('attack label', label, labels)}")
        return self


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
        return Suite.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{origin}: not valid TOML: {error}") from None
    except ValidationError as error:
        raise UserError("\n".join(f"{origin}: {_explain(item)}" for item in _own(error.errors()))) from None


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
