"""The value objects that are hashed, stored and published; importing them costs no torch."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cached_property, lru_cache
from math import ceil, floor, log
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

SCHEMA_VERSION = 2

CONTROLS = frozenset({"none", "scratch", "public", "magnitude", "random_mask"})
"""The rows that a table is read against, whatever is chosen."""
BASELINES = ("scratch", "public")
"""The rows from which an attacker starts without the release."""
NONE = "none"
"""The registered name of the unprotected release."""
FILE = "file"
"""The registered name of a release that was made elsewhere and comes as a file."""

Kind = Literal["defense", "attack"]
Track = Literal["target", "source", "unlabelled", "queries"]
"""What an attacker holds besides the release."""
Status = Literal["ok", "error", "timeout", "diverged", "unusable", "inapplicable"]
SETTLED: tuple[Status, ...] = ("ok", "unusable", "inapplicable")
"""How a cell ends that did not fail; `unusable` is a defense that lost the source."""
Precision = Literal["float32", "bfloat16"]
Mask = Literal["dense", "keep"]
Knowledge = Literal["others", "own"]
"""How an attacker chooses: by what others saw, or by a fifth of its own samples that it does not train on."""
Selection = Literal["last", "best val", "best test"]
"""Which pass of a run a paper reports; `best test` chooses on the data that it then reports on."""

Rehearsal = Literal["target", "source"]
"""What a defender plays a task on who tunes: its own share of the target, or domains made from the source."""


def digest(value: Any) -> str:
    """Return 16 hex digits of the SHA-256 of a JSON-able value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Recipe(BaseModel):
    """A frozen value that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Grown(Recipe):
    """A recipe with fields that came later: at their defaults they are left out, so that older keys stay."""

    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unused = {name for name in self.later if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in dump(self).items() if name not in unused}


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


class ObjectiveSpec(Recipe):
    """What a task learns, and how it is scored: the name of an objective, and the parameters that it is built with."""

    name: str = "classification"
    params: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


CLASSIFICATION = ObjectiveSpec()


class Training(Grown):
    """What decides a plain supervised training, apart from its data and its seed.

    Where nothing is `trained`, the starting weights stay as they are, and `sha256` is that of their file.
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
    """Where the starting weights come from: a file, `timm` for published ones, or a random start where it is empty."""
    trained: bool = True
    sha256: str = ""


class Budget(Recipe):
    """What single runs may take in optimizer steps: up to `horizon` times T90, and each smaller budget down to T90 / 8.

    Budgets lie a factor of `ratio` apart; each is one number of the run's trajectory.
    """

    t90: float = Field(gt=0)
    horizon: float = Field(default=8.0, gt=0)
    ratio: float = Field(default=2.0, gt=1, le=2)

    @property
    def unit(self) -> float:
        """Return T90, the steps that budgets are told in."""
        return self.t90

    @property
    def said(self) -> str:
        """Return the largest budget in words."""
        return f"{self.horizon:g} T90 of {self.t90:g} steps"

    @property
    def steps(self) -> int:
        """Return the largest budget in steps."""
        return max(1, round(self.horizon * self.t90))

    @property
    def ends(self) -> tuple[int, ...]:
        """Return every budget in steps, rising."""
        count = floor(log(8 * self.horizon) / log(self.ratio) + 1e-9) if self.horizon > 1 / 8 else 0
        return tuple(sorted({max(1, round(self.horizon * self.t90 / self.ratio**k)) for k in range(count + 1)}))


class Epochs(Recipe):
    """What a run of a paper's protocol may take: `epochs` passes over the attacker's samples, of `each` steps a pass.

    With `patience` a run ends after so many passes in which the score that `select` goes by has not risen.
    """

    epochs: int = Field(ge=1)
    each: int = Field(ge=1)
    select: Selection = "last"
    patience: int = Field(default=0, ge=0)

    @classmethod
    def of(cls, samples: int, batch_size: int, **rules: Any) -> Epochs:
        """Return the passes over so many samples; the last batch of a pass counts as a whole one."""
        return cls(each=ceil(samples / batch_size), **rules)

    @property
    def unit(self) -> float:
        """Return the steps of a pass, which budgets are told in."""
        return float(self.each)

    @property
    def said(self) -> str:
        """Return the largest budget in words."""
        return f"{self.epochs} passes of {self.each} steps"

    @property
    def steps(self) -> int:
        """Return the largest budget in steps."""
        return self.epochs * self.each

    @property
    def ends(self) -> tuple[int, ...]:
        """Return the steps at which a run is scored, rising: every pass where one is chosen, else the last."""
        first = self.epochs if self.select == "last" else 1
        return tuple(self.each * k for k in range(first, self.epochs + 1))

    def chosen(self, run: Trajectory) -> int | None:
        """Return the place in a trajectory of what is reported, the first of equals; None where it has no scores."""
        if not run.step:
            return None
        scores = {"last": run.step, "best val": run.val, "best test": run.test}[self.select]
        return scores.index(max(scores))

    def over(self, run: Trajectory) -> bool:
        """Return whether a run that has come so far has been patient for long enough."""
        best = self.chosen(run)
        return bool(self.patience) and best is not None and len(run.step) - 1 - best >= self.patience


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

    def recipe(self) -> dict[str, Any]:
        """Return what decides the method's behaviour."""
        return self.model_dump(mode="json", exclude={"label"})


class Cell(Grown):
    """One number's full recipe."""

    later = frozenset({"objective"})

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

    @property
    def mask(self) -> Mask:
        """Return whether the attacker keeps the zeros of a released mask."""
        return "keep" if self.attack.params.get("mask") == "keep" else "dense"

    @property
    def coordinates(self) -> tuple[str, str, str, Mask, int, int, Knowledge]:
        """Return the cell's place in the tables, which stays when a method's code or parameters change."""
        defense, attack = self.defense.label, self.attack.label
        return (self.task.name, defense, attack, self.mask, self.samples, self.seed, self.knowledge)

    @property
    def origin(self) -> str:
        """Return the domain that the defender's model is trained on: the source, but for public models of others."""
        return str(self.defense.params.get("origin") or self.task.source)

    @cached_property
    def pretrain_key(self) -> str:
        """Return the hash of what decides the pretrained weights; the target domain does not."""
        rehearsed = {"rehearsal": True} if self.task.rehearsal else {}
        return digest(
            {
                "schema": SCHEMA_VERSION,
                "source": self.origin,
                "image_size": self.task.image_size,
                "samples": [self.task.train_samples, self.task.scored_samples],
                "arch": self.arch.model_dump(mode="json"),
                "pretrain": self.pretrain.model_dump(mode="json"),
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
        return digest(
            {
                "protocol": self.protocol,
                "protect": self.protect_key,
                "attack": self.attack.recipe(),
                "budget": self.budget.model_dump(mode="json"),
                "samples": self.samples,
                "source_share": self.source_share,
                "knowledge": self.knowledge,
            }
        )


class Trajectory(Recipe):
    """What single runs of rising budgets took and reached, as columns of equal length; seconds exclude scoring.

    `step` is the budget. `val` and `test` are scores; `correct` says of every test image what it adds to the score, for
    classification whether it was right, packed by `pack_scores`; `own` is the score on the samples that an attacker put
    aside, where it chooses by them.
    """

    step: tuple[int, ...] = ()
    samples: tuple[int, ...] = ()
    flops: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()
    val: tuple[float, ...] = ()
    test: tuple[float, ...] = ()
    correct: tuple[str, ...] = ()
    own: tuple[float | None, ...] = ()

    @model_validator(mode="after")
    def _rectangular(self) -> Trajectory:
        if len({len(column) for _, column in self}) > 1:
            raise ValueError("the columns of a trajectory differ in length")
        return self


def pack_bits(right: NDArray[np.bool_]) -> str:
    """Return booleans [n] as base64 of their bits, eight a byte."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpack_bits(text: str, count: int) -> NDArray[np.bool_]:
    """Return the first `count` of the booleans that `pack_bits` packed."""
    held = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    return np.unpackbits(held, count=count).astype(bool)


def pack_scores(each: NDArray[Any]) -> str:
    """Return what each of n images adds to a score: booleans as `pack_bits`, others as base64 of two bytes each.

    A colon, which base64 does not have, tells the second from the first.
    """
    if each.dtype == np.bool_:
        return pack_bits(each)
    return ":" + base64.b64encode(each.astype("<f2").tobytes()).decode()


def unpack_scores(text: str, count: int) -> NDArray[np.float64]:
    """Return the first `count` of the numbers that `pack_scores` packed."""
    if not text.startswith(":"):
        return unpack_bits(text, count).astype(np.float64)
    return np.frombuffer(base64.b64decode(text[1:]), dtype="<f2", count=count).astype(np.float64)


class Protection(Recipe):
    """What pretraining and protecting cost and did; accuracies are on test data, seconds are wall time.

    `clean` and `kept` say of every source test image what it adds to the score before and after, as `pack_scores` does.
    """

    status: Status = "ok"
    error: str = ""
    needs: str = ""
    source_before: float | None = None
    source_after: float | None = None
    clean: str = ""
    kept: str = ""
    zero_shot: float | None = None
    sparsity: float | None = None
    pretrain_seconds: float | None = None
    pretrain_flops: int | None = None
    protect_seconds: float | None = None
    protect_flops: int | None = None
    protect_steps: int | None = None


class Provenance(Recipe):
    """Where a result comes from: data hashes per split, and the versions that computed it."""

    data: dict[str, str]
    versions: dict[str, str]
    device: str


class Result(Recipe):
    """A finished cell, whether it went well or not; a run that failed keeps what it reached before.

    `images` is how many target test images were scored and `originals` how many of them are independent: image i of
    the test set shows original i modulo `originals`. `source_images` is the number of source test images. `paid` is
    what the run cost in steps with everything that it tried before.
    """

    schema_version: Literal[2] = 2
    cell: Cell
    status: Status
    error: str = ""
    choice: str = ""
    """What an attack that chooses for itself says that it chose."""
    track: Track = "target"
    images: int = 0
    originals: int = 0
    source_images: int = 0
    paid: int = 0
    protection: Protection | None = None
    trajectory: Trajectory = Trajectory()
    provenance: Provenance | None = None
    seconds: float = 0.0
    peak_mb: float = 0.0
