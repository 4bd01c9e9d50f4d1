"""What is learnt: what a batch holds, what the loss is, how a model is scored. One file a kind, found by its name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, ClassVar

import torch
from pydantic import ValidationError
from torch import Generator, Tensor, nn

from ntbench.errors import UserError, unknown
from ntbench.types import Arch, Grown, ObjectiveSpec

SCORING_BATCH = 200


class Objective(Grown):
    """What a task asks of a model; its fields are the parameters that a suite may give it, tables by domain."""

    name: ClassVar[str]
    labelled: ClassVar[bool] = True
    """Whether samples have labels, of classes whose number may differ between source and target."""
    example: ClassVar[Arch]
    """A network of seconds by which methods are examined."""

    def seen(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is held of images [n, 3, s, s], uint8 or floats, and of labels [n]: all of both."""
        return x, y

    def outputs(self, classes: int) -> int:
        """Return how many outputs a model has on a domain of so many classes."""
        return classes

    def shown(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of what a model is shown of one sample of a shape."""
        return shape

    def batch(self, x: Tensor, y: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of a step on samples x [b, ...] with labels y [b]."""
        return x, y

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a model's outputs on a batch."""
        raise NotImplementedError

    def each(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return what each of n samples adds to the score of a model in eval mode, [n] on the CPU; it is their mean."""
        raise NotImplementedError

    def natural(self, score: float) -> float | None:
        """Return the error behind a score that says how large it is; None where the score is the natural number."""
        return None

    def made(self, model: nn.Module, count: int, size: int, device: torch.device, noise: int = 0) -> Tensor | None:
        """Return images [n, c, s, s] in [-1, 1] that a model in eval mode makes by itself; None where it makes none.

        `noise` is the seed of what it makes them from.
        """
        return None

    @property
    def features_file(self) -> str:
        """Return the weights of Inception in whose features made images are compared; none: in their components."""
        return ""

    def at(self, domain: str) -> Objective:
        """Return the objective on one domain, by its name."""
        return self

    def unanchored(self, domains: Iterable[str]) -> list[str]:
        """Return the domains of which nobody has measured what scores 1: none where that is a natural end."""
        return []

    def anchored(self, plateaus: Mapping[str, float]) -> Objective:
        """Return the objective in which what scored so much on a domain scores 1."""
        return self

    def converted(self, score: float, other: Objective) -> float:
        """Return here what is a score under another objective of this kind: the same, where both have one scale."""
        return score

    @property
    def spec(self) -> ObjectiveSpec:
        """Return what stands for the objective in recipes, with every parameter resolved."""
        return ObjectiveSpec(name=self.name, params=self.model_dump(mode="json"))

    def unfit(self, model: nn.Module) -> str:
        """Return why a network cannot do what is asked here, or an empty string where it can."""
        told = getattr(model, "objective", "classification")
        return "" if told == self.name else f"{type(model).__name__} is a network for {told}, not for {self.name}"

    def refuses(self, method: Any) -> str:
        """Return why a defense or an attack has no meaning here, or an empty string where it has."""
        if self.name in method.objectives:
            return ""
        return f"{method.name} is written for {' and '.join(method.objectives)}, not for {self.name}"


@cache
def objectives() -> dict[str, type[Objective]]:
    """Return the objectives of this package by name."""
    package = __name__.rpartition(".")[0]
    names = [info.name for info in pkgutil.iter_modules(importlib.import_module(package).__path__)]
    modules = [importlib.import_module(f"{package}.{name}") for name in names]
    found = [cls for module in modules for cls in vars(module).values() if isinstance(cls, type)]
    return {cls.name: cls for cls in found if issubclass(cls, Objective) and cls is not Objective}


def objective_of(spec: ObjectiveSpec) -> Objective:
    """Return what a recipe asks for; UserError on a name that nothing stands for and on parameters that it refuses."""
    if spec.name not in objectives():
        raise unknown("objective", spec.name, objectives())
    try:
        return objectives()[spec.name](**spec.params)
    except ValidationError as error:
        item = error.errors()[0]
        key = ".".join(map(str, item["loc"]))
        raise UserError(f"objective {spec.name!r}: {key} = {item['input']!r}: {item['msg']}") from None
