"""Recipes: everything that decides one number."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any

from pydantic import (
    Field,
    model_validator,
)

from ntbench.types.budgets import Budget, Epochs
from ntbench.types.tasks import CLASSIFICATION, ObjectiveSpec, Task
from ntbench.types.words import (
    SCHEMA_VERSION,
    Grown,
    Kind,
    Knowledge,
    Mask,
    Precision,
    Recipe,
    digest,
)

Positive = Annotated[float, Field(gt=0)]
Channels = tuple[float, float, float]


class Arch(Grown):
    """A timm architecture, or a function of one's own, and the keyword arguments that it is built with.

    `package.module:function` and `file.py:function` are such functions; `code` is the hash of their files.
    `mean` and `std` of pixels in [0, 1], by channel, are those of its own preprocessing; left out, both are 0.5.
    """

    later = frozenset({"mean", "std", "code"})

    name: str
    params: dict[str, Any] = {}
    mean: Channels | None = None
    std: tuple[Positive, Positive, Positive] | None = None
    code: str = ""

    @model_validator(mode="after")
    def _both(self) -> Arch:
        if (self.mean is None) != (self.std is None):
            raise ValueError("give `mean` and `std` together, or neither")
        return self


class Training(Grown):
    """What decides a plain supervised training, apart from its data and its seed.

    `sha256` is that of the file of starting weights, where there is one. Where nothing is `trained`, these stay as they
    are.
    """

    later = frozenset({"trained", "sha256"})

    optimizer: str = "adam"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: str = "constant"
    warmup: int = Field(default=0, ge=0)
    steps: int = Field(default=400, ge=1)
    batch_size: int = Field(default=64, ge=1)
    weights: str = ""
    """Where the starting weights come from: a file, a folder in which diffusers saved a model, `timm` for published
    ones, or a random start where it is empty."""
    trained: bool = True
    sha256: str = ""


class Tuning(Recipe):
    """How a defense's hyper-parameters were found: the names of those that so many trials changed, and their cost.

    `steps` and `flops` are those of all protections and attacks of the trials. `leak` and `drop` are what the trial
    that was taken had; `kept` are the values of the one that lost least of the source, where that is within the limit.
    """

    trials: int = Field(ge=1)
    names: tuple[str, ...]
    steps: int = Field(ge=0)
    flops: int = Field(ge=0)
    leak: float | None = None
    drop: float | None = None
    kept: dict[str, Any] = {}


class MethodSpec(Grown):
    """A defense or attack with every hyper-parameter resolved; the label names it in tables and is not hashed."""

    later = frozenset({"tuning"})

    kind: Kind
    name: str
    version: int
    code: str
    params: dict[str, Any]
    label: str
    tuning: Tuning | None = None

    @property
    def mask(self) -> Mask:
        """Return whether an attack keeps the zeros of a released mask."""
        return "keep" if self.params.get("mask") == "keep" else "dense"

    def recipe(self) -> dict[str, Any]:
        """Return what decides the method's behaviour."""
        return self.model_dump(mode="json", exclude={"label"})


class Cell(Grown):
    """One number's full recipe; `scoring` is the precision of the scores that choices rest on, and of no others."""

    later = frozenset({"objective", "scoring"})

    protocol: str
    task: Task
    arch: Arch
    pretrain: Training
    defense: MethodSpec
    attack: MethodSpec
    budget: Budget | Epochs
    samples: int = Field(ge=1)
    seed: int = Field(ge=0)
    source_share: float = Field(default=0.1, gt=0, le=1)
    knowledge: Knowledge = "others"
    precision: Precision = "float32"
    objective: ObjectiveSpec = CLASSIFICATION
    scoring: Precision = "float32"

    @property
    def mask(self) -> Mask:
        """Return whether the attacker keeps the zeros of a released mask."""
        return self.attack.mask

    @property
    def coordinates(self) -> tuple[str, str, str, Mask, int, int, Knowledge]:
        """Return the cell's place in the tables, which stays when a method's code or parameters change."""
        defense, attack = self.defense.label, self.attack.label
        return (self.task.name, defense, attack, self.mask, self.samples, self.seed, self.knowledge)

    @property
    def origin(self) -> str:
        """Return the domain that the defender's model is trained on: the source, but for public models of others."""
        return str(self.defense.params.get("origin") or self.task.source)

    @property
    def start(self) -> Training:
        """Return what the defender's model is: as `pretrain` says, but for published weights, which nobody trains."""
        published = self.defense.params.get("weights") == "timm"
        return Training(weights="timm", trained=False) if published else self.pretrain

    @cached_property
    def pretrain_key(self) -> str:
        """Return the hash of what decides the pretrained weights; of a target that is what is known of its scale."""
        rehearsed = {"rehearsal": True} if self.task.rehearsal else {}
        return digest(
            {
                "schema": SCHEMA_VERSION,
                "source": self.origin,
                "image_size": self.task.image_size,
                "samples": [self.task.train_samples, self.task.scored_samples],
                "arch": self.arch.model_dump(mode="json"),
                "pretrain": self.start.model_dump(mode="json"),
                "precision": self.precision,
                "seed": self.seed,
                **rehearsed,
                **self.model_dump(mode="json", include={"objective"}),
            }
        )

    @cached_property
    def protect_key(self) -> str:
        """Return the hash of what decides the protected weights; nothing of an attack does."""
        return digest({"pretrain": self.pretrain_key, "task": self.task.data, "defense": self.defense.recipe()})

    @cached_property
    def key(self) -> str:
        """Return the hash of what decides the result."""
        scored = {} if self.scoring == "float32" else {"scoring": self.scoring}
        return digest(
            {
                "protocol": self.protocol,
                "protect": self.protect_key,
                "attack": self.attack.recipe(),
                "budget": self.budget.model_dump(mode="json"),
                "samples": self.samples,
                "source_share": self.source_share,
                "knowledge": self.knowledge,
                **scored,
            }
        )
