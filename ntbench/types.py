"""The value objects that are hashed, stored and published; importing them costs no torch."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA_VERSION = 1

CONTROLS = frozenset({"none", "scratch", "magnitude", "random_mask"})
"""The rows that a table is read against, whatever is chosen."""

Kind = Literal["defense", "attack"]
Status = Literal["ok", "error", "timeout", "diverged", "inapplicable"]
SETTLED: tuple[Status, ...] = ("ok", "inapplicable")
"""How a cell ends that did not fail."""
Precision = Literal["float32", "bfloat16"]
Mask = Literal["dense", "keep"]


def digest(value: Any) -> str:
    """Return 16 hex digits of the SHA-256 of a JSON-able value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Recipe(BaseModel):
    """A frozen value that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Task(Recipe):
    """One (source, target) pair of domains at one image size in pixels.

    Of each domain at most so many training samples, and of its validation and its test split so many each, are used.
    """

    source: str
    target: str
    image_size: int = Field(default=16, ge=8, le=512)
    train_samples: int | None = Field(default=None, ge=1)
    scored_samples: int | None = Field(default=None, ge=1)

    @property
    def name(self) -> str:
        """Return the pair as it stands in tables and file names."""
        return re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{self.source}-{self.target}")


class Arch(Recipe):
    """A timm architecture and the keyword arguments that it is built with."""

    name: str
    params: dict[str, Any] = {}


class Training(Recipe):
    """What decides a plain supervised training, apart from its data and its seed."""

    optimizer: str = "adam"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: str = "constant"
    warmup: int = Field(default=0, ge=0)
    steps: int = Field(default=400, ge=1)
    batch_size: int = Field(default=64, ge=1)


class Budget(Recipe):
    """What one attack may spend, in optimizer steps and training samples, and the steps at which it is scored."""

    steps: int = Field(ge=1)
    samples: int = Field(ge=1)
    scored: tuple[int, ...]

    def times(self, factor: int) -> Budget:
        """Return a budget of so many times the steps and samples, scored as often."""
        scored = tuple(factor * step for step in self.scored)
        return Budget(steps=factor * self.steps, samples=factor * self.samples, scored=scored)

    @model_validator(mode="after")
    def _ordered(self) -> Budget:
        steps = self.scored
        if not steps or list(steps) != sorted(set(steps)) or steps[0] < 1 or steps[-1] != self.steps:
            raise ValueError(f"scored={list(steps)} must rise strictly from 1 or more to steps={self.steps}")
        return self


class MethodSpec(Recipe):
    """A defense or attack with every hyper-parameter resolved; the label names it in tables and is not hashed."""

    kind: Kind
    name: str
    version: int
    code: str
    params: dict[str, Any]
    label: str

    def recipe(self) -> dict[str, Any]:
        """Return what decides the method's behaviour."""
        return self.model_dump(mode="json", exclude={"label"})


class Cell(Recipe):
    """One number's full recipe."""

    protocol: str
    task: Task
    arch: Arch
    pretrain: Training
    budget: Budget
    defense: MethodSpec
    attack: MethodSpec
    ratio: float = Field(gt=0, le=1)
    seed: int = Field(ge=0)
    precision: Precision = "float32"

    @property
    def mask(self) -> Mask:
        """Return whether the attacker keeps the zeros of a released mask."""
        return "keep" if self.attack.params.get("mask") == "keep" else "dense"

    @property
    def coordinates(self) -> tuple[str, str, str, Mask, float, int]:
        """Return the cell's place in the tables, which stays when a method's code or parameters change."""
        return (self.task.name, self.defense.label, self.attack.label, self.mask, self.ratio, self.seed)

    @cached_property
    def pretrain_key(self) -> str:
        """Return the hash of what decides the pretrained weights; the target domain does not."""
        return digest(
            {
                "schema": SCHEMA_VERSION,
                "source": self.task.source,
                "image_size": self.task.image_size,
                "samples": [self.task.train_samples, self.task.scored_samples],
                "arch": self.arch.model_dump(mode="json"),
                "pretrain": self.pretrain.model_dump(mode="json"),
                "precision": self.precision,
                "seed": self.seed,
            }
        )

    @cached_property
    def protect_key(self) -> str:
        """Return the hash of what decides the protected weights."""
        return digest(
            {
                "pretrain": self.pretrain_key,
                "target": self.task.target,
                "budget": self.budget.model_dump(mode="json"),
                "defense": self.defense.recipe(),
            }
        )

    @cached_property
    def key(self) -> str:
        """Return the hash of what decides the result."""
        return digest(
            {
                "protocol": self.protocol,
                "protect": self.protect_key,
                "attack": self.attack.recipe(),
                "budget": self.budget.model_dump(mode="json"),
                "ratio": self.ratio,
            }
        )


class Trajectory(Recipe):
    """What an attack run measured on its way, as columns of equal length; seconds exclude scoring."""

    step: tuple[int, ...] = ()
    samples: tuple[int, ...] = ()
    flops: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()
    val: tuple[float, ...] = ()
    test: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _rectangular(self) -> Trajectory:
        if len({len(column) for _, column in self}) > 1:
            raise ValueError("the columns of a trajectory differ in length")
        return self


class Protection(Recipe):
    """What pretraining and protecting cost and did; accuracies are on test data, seconds are wall time."""

    status: Status = "ok"
    error: str = ""
    needs: str = ""
    source_before: float | None = None
    source_after: float | None = None
    zero_shot: float | None = None
    sparsity: float | None = None
    pretrain_seconds: float | None = None
    pretrain_flops: int | None = None
    protect_seconds: float | None = None
    protect_flops: int | None = None


class Provenance(Recipe):
    """Where a result comes from: data hashes per split, and the versions that computed it."""

    data: dict[str, str]
    versions: dict[str, str]
    device: str


class Result(Recipe):
    """A finished cell, whether it went well or not."""

    schema_version: Literal[1] = 1
    cell: Cell
    status: Status
    error: str = ""
    choice: str = ""
    """What an attack that chooses for itself says that it chose."""
    samples: int | None = None
    protection: Protection | None = None
    trajectory: Trajectory = Trajectory()
    provenance: Provenance | None = None
    seconds: float = 0.0
    peak_mb: float = 0.0
