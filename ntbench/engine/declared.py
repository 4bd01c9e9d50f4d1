"""What a method says of itself, as plain values that may cross a line."""

from __future__ import annotations

import inspect
from dataclasses import asdict
from typing import Any

from ntbench.domains import Dataset
from ntbench.engine.space import space_of
from ntbench.method import Access, Attack, Defense, Method, Metric
from ntbench.sources import source_file

DEFENSE = ("needs_source", "needs_target", "needs_target_labels", "masked")


def described(cls: type[Method] | type[Dataset] | type[Metric]) -> dict[str, Any]:
    """Return what a class says of itself."""
    if issubclass(cls, Dataset | Metric):
        facts = {name: getattr(cls, name) for name in ("kind", "name", "version")}
        facts |= {
            "text": inspect.cleandoc(cls.__doc__ or "")[:2000],
            "file": source_file(cls),
            "module": cls.__module__,
        }
        return facts | ({"better": getattr(cls, "better", None)} if issubclass(cls, Metric) else {})
    facts = {"kind": cls.kind, "name": cls.name, "version": cls.version, "paper": cls.paper}
    text = inspect.getdoc(inspect.getmodule(cls)) or inspect.getdoc(cls) or ""
    facts |= {"text": text[:2000], "file": source_file(cls), "module": cls.__module__, "fields": list(cls.model_fields)}
    facts["objectives"] = list(cls.objectives)
    if issubclass(cls, Defense):
        axes = {name: axis.model_dump(mode="json") for name, axis in space_of(cls).items()}
        return facts | {name: bool(getattr(cls, name)) for name in DEFENSE} | {"axes": axes}
    access = cls.access if issubclass(cls, Attack) else Access()
    return facts | {"access": asdict(access)}


def traits(method: Method) -> dict[str, Any]:
    """Return what holds for a method with its hyper-parameters."""
    if not isinstance(method, Attack):
        return {}
    plain = {"batch_size": getattr(method, "batch_size", 32), "schedule": getattr(method, "schedule", "cooldown")}
    names = ("respects_mask", "on_features", "is_one_fit", "at_horizon_alone")
    return plain | {name: bool(getattr(method, name)) for name in names}
