"""What stands in this process for a method of foreign code: what it declares, and questions that go to a child."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, ClassVar

from ntbench.domains import Dataset, Raw
from ntbench.engine import apart
from ntbench.engine.declared import DEFENSE
from ntbench.engine.measuring import measure
from ntbench.method import Access, Attack, Defense, Metric, Row
from ntbench.metric import Answer
from ntbench.registry import registry
from ntbench.sources import code_digest
from ntbench.types import Kind, MethodSpec


class Foreign:
    """A method of foreign code with its hyper-parameters; what it declares it declares for its class."""

    kind: ClassVar[Kind]
    name: ClassVar[str]
    origin_file: ClassVar[str]
    objectives: ClassVar[tuple[str, ...]]
    model_fields: ClassVar[dict[str, None]]

    def __init__(self, **params: Any) -> None:
        """Take hyper-parameters, which the method checks as soon as its recipe is asked for."""
        self._params = params

    @property
    def _told(self) -> tuple[MethodSpec, dict[str, Any]]:
        return _told(self.kind, self.name, code_digest(type(self)), json.dumps(self._params, sort_keys=True))

    def spec(self, label: str = "") -> MethodSpec:
        """Return the recipe; raises UserError on parameters that the method refuses."""
        return self._told[0].model_copy(update={"label": label or self.name})


@cache
def _told(kind: Kind, name: str, code: str, params: str) -> tuple[MethodSpec, dict[str, Any]]:
    """Return what a child says of a method with its hyper-parameters; a recipe is asked for once, not once a cell."""
    return apart.spec(kind, name, json.loads(params), name)


class ForeignDefense(Foreign):
    """A foreign defense."""

    needs_source: ClassVar[bool]
    needs_target: ClassVar[bool]
    needs_target_labels: ClassVar[bool]
    masked: ClassVar[bool]
    axes: ClassVar[dict[str, Any]]
    needs: Any = classmethod(Defense.needs.__func__)  # type: ignore[attr-defined]


class ForeignAttack(Foreign):
    """A foreign attack."""

    access: ClassVar[Access]
    needs: Any = classmethod(Attack.needs.__func__)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        """Return what holds for the attack with its hyper-parameters."""
        if name.startswith("_"):
            raise AttributeError(name)
        return self._told[1][name]

    def refuses(self, defense: Any, source_classes: int, target_classes: int) -> str:
        """Return why the attack cannot face a defense on a task, or an empty string where it can."""
        faced = {"defense": defense.name, "masked": defense.masked, "classes": [source_classes, target_classes]}
        return apart.refuses(self.spec(), faced)


class ForeignDataset(Dataset):
    """A foreign domain: its code runs in another process, which hands over its images."""

    origin_file: ClassVar[str]

    def build(self, image_size: int) -> Raw:
        """Return the images; raises UserError where the domain builds none."""
        return apart.build(self.name, image_size)

    def fingerprint(self) -> str:
        """Return what the domain says of the files that it reads."""
        return apart.fingerprint(self.name)


class ForeignMetric(Metric):
    """A foreign metric: its code runs in another process, which gets the stored numbers of one row after another."""

    origin_file: ClassVar[str]

    @classmethod
    def each(cls, rows: Sequence[Row]) -> Iterator[Answer]:
        """Yield what the metric gives for every row; what ends its process is told of every row behind."""
        yield from measure(cls.name, rows)


class Door:
    """The registry's way to foreign code."""

    def describe(self, file: str) -> list[dict[str, Any]]:
        """Return what the methods of a file, or of installed packages, say of themselves."""
        return apart.describe(file)

    def stand_in(self, described: dict[str, Any]) -> type[Any]:
        """Return a class that stands for a described method, domain or metric."""
        facts: dict[str, Any] = {name: described[name] for name in ("kind", "name", "version")}
        facts |= {"origin_file": described["file"], "__doc__": described["text"], "__module__": described["module"]}
        if described["kind"] == "domain":
            return type("ForeignDataset", (ForeignDataset,), facts)
        if described["kind"] == "metric":
            return type("ForeignMetric", (ForeignMetric,), facts | {"better": described["better"]})
        facts |= {"paper": described["paper"], "objectives": tuple(described["objectives"])}
        facts["model_fields"] = dict.fromkeys(described["fields"])
        if described["kind"] == "defense":
            declared = {name: described[name] for name in (*DEFENSE, "axes")}
            return type("ForeignDefense", (ForeignDefense,), facts | declared)
        return type("ForeignAttack", (ForeignAttack,), facts | {"access": Access(**described["access"])})


def open_door() -> None:
    """Keep foreign code out of this process from here on."""
    registry.door = registry.door or Door()


def is_foreign(method: object) -> bool:
    """Return whether a method runs in a process of its own."""
    return isinstance(method, Foreign)
