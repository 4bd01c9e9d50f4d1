"""The two kinds of published files: a suite, and what one defense did on one task of it with every run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import Field, ValidationError, field_validator

from ntbench.errors import UserError
from ntbench.measure.board import COLUMNS, LATER
from ntbench.suite import Suite
from ntbench.types import (
    CLASSIFICATION,
    Arch,
    Grown,
    Knowledge,
    Mask,
    MethodSpec,
    ObjectiveSpec,
    Precision,
    Protection,
    Recipe,
    Status,
    Task,
    Track,
    Training,
    digest,
)

ROW = tuple(name for name in COLUMNS if name not in ("task", "defense"))
"""What a row holds beside the task and the defense of its file; only one that was tuned says how."""
SUITE = "suite.json"
Whole = Annotated[int, Field(strict=True, ge=0)]
Score = Whole | Annotated[float, Field(strict=True, ge=0, le=1)] | None
Number = Annotated[int, Field(strict=True)] | Annotated[float, Field(strict=True, allow_inf_nan=False)]
Value = Annotated[bool, Field(strict=True)] | Number | Annotated[str, Field(strict=True)] | None
Day = Annotated[str, Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$")]
Protocol = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*-[1-9][0-9]*$")]
End = Number | Literal["inf", "-inf"] | None
Short = Annotated[str, Field(pattern=r"^([0-9a-f]{8})?$")]
File = TypeVar("File", bound="Checked")


class Checked(Recipe):
    """A file that carries the hash of the rest of itself, which finds damage and careless edits, not forgery."""

    checksum: str = ""

    @property
    def content(self) -> dict[str, Any]:
        """Return everything but the hash."""
        return self.model_dump(mode="json", exclude={"checksum"})

    @property
    def intact(self) -> bool:
        """Return whether the hash fits the rest."""
        return self.checksum == digest(self.content)


class PublishedSuite(Checked):
    """The suite that all files of a folder belong to, with T90 and plateau as they were measured."""

    schema_version: Literal[3] = 3
    suite: Suite

    def text(self) -> str:
        """Return the file's text, the same for the same content."""
        content = self.content
        return json.dumps(content | {"checksum": digest(content)}, indent=1, sort_keys=True, allow_nan=False) + "\n"


class PublishedAttack(Recipe):
    """An attack, and the track that its access puts it into."""

    spec: MethodSpec
    track: Track


class PublishedCell(NamedTuple):
    """One cell; `attack` counts in the file's attacks, `error` and `choice` in its texts.

    `val` and `test` have a place for each budget, rising, with None where the run has no number. Bit k of `bits` says
    that the images that were right at budget k stand in `correct`. `images` is the hash of those of all budgets,
    `sum` that of the whole result with its recipe.
    """

    attack: Whole
    knowledge: Knowledge
    samples: Whole
    seed: Whole
    status: Status
    error: Whole
    choice: Whole
    paid: Whole
    val: tuple[Score, ...]
    test: tuple[Score, ...]
    bits: Whole
    images: Short
    sum: Short


class Verified(Recipe):
    """Cells, by key, that somebody computed again with some version and found to be as published."""

    version: str = Field(min_length=1)
    date: Day
    cells: tuple[str, ...] = Field(min_length=1)


class Said(Recipe):
    """What a row said, and which attacks that it had not faced by then carry worst cases of what it said next."""

    track: Track
    mask: Mask
    leak: End
    leak_low: End
    leak_high: End
    interval: str
    verdict: Literal["", "holds", "leaks", "open", "none"]
    attack: str
    since: tuple[str, ...] = ()


class Past(Recipe):
    """What a file said until a day: the suite, the hash of the file, those of its attacks, and its rows."""

    until: Day
    protocol: Protocol
    checksum: str = Field(pattern=r"^[0-9a-f]{16}$")
    attacks: tuple[Short, ...]
    rows: tuple[Said, ...]


class Published(Checked, Grown):
    """One file: a defense on a task.

    Scores are counts out of `val_of` and `test_of` images, or fractions where that is 0. `columns` and `correct` are
    packed as `ntbench.leaderboard.packing` says; `keys` is the hash of all keys of the cells. Where models make images,
    `frechets` has for every cell how far what its last model makes lies from the target. Left out are an empty
    `history`, whose oldest part comes first, no `frechets`, the `objective` of classifiers and a `scoring` in float32.
    """

    later = frozenset({"history", "objective", "scoring", "frechets"})

    schema_version: Literal[3] = 3
    protocol: Protocol
    task: Task
    arch: Arch
    pretrain: Training
    horizon: float
    scored: float
    source_share: float
    precision: Precision
    objective: ObjectiveSpec = CLASSIFICATION
    scoring: Precision = "float32"
    seeds: tuple[Whole, ...] = Field(min_length=1)
    defense: MethodSpec
    attacks: tuple[PublishedAttack, ...] = Field(min_length=1)
    images: Whole
    originals: Whole
    source_images: Whole
    val_of: Whole
    test_of: Whole
    data: dict[str, str]
    versions: dict[str, str]
    device: str
    protections: dict[int, Protection]
    texts: tuple[str, ...]
    rows: tuple[dict[str, Value], ...] = ()
    verified: tuple[Verified, ...] = ()
    history: tuple[Past, ...] = ()
    cells: tuple[PublishedCell, ...]
    frechets: tuple[Annotated[float, Field(strict=True, allow_inf_nan=False)] | None, ...] = ()
    columns: str
    correct: str
    keys: str

    @field_validator("rows")
    @classmethod
    def _complete(cls, rows: tuple[dict[str, Value], ...]) -> tuple[dict[str, Value], ...]:
        for row in rows:
            if wrong := {*row, *LATER} ^ {*ROW}:
                raise ValueError(f"the columns {sorted(wrong)} are missing or unknown; publish again with this version")
        return rows

    @property
    def place(self) -> Path:
        """Return where the file belongs, below the results folder."""
        return Path(self.protocol.rpartition("-")[0], self.defense.label, f"{self.task.name}.json")

    def text(self) -> str:
        """Return the file's text: sorted keys, one cell a line, the same for the same content."""
        content = self.content
        content["checksum"] = digest(content)
        lines = ",\n".join(f"  {json.dumps(cell, separators=(',', ':'))}" for cell in content.pop("cells"))
        head = json.dumps(content | {"cells": []}, indent=1, sort_keys=True, allow_nan=False)
        return head.replace('\n "cells": []', f'\n "cells": [\n{lines}\n ]', 1) + "\n"


def read(path: Path, kind: type[File]) -> File:
    """Read a published file; raises UserError with one line per mistake: file, key, value, reason."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError("\n".join(dict.fromkeys(f"{path}: {_explain(item)}" for item in error.errors()))) from None


def _explain(item: Any) -> str:
    parts = [str(part) for part in item["loc"]]
    if len(parts) > 2 and parts[0] == "cells":
        parts[2] = PublishedCell._fields[int(parts[2])] if parts[2].isdigit() else parts[2]
    key = ".".join(part for part in parts if part.isidentifier() or part.isdigit()) or "file"
    value = repr(item["input"])
    return f"{key} = {value if len(value) < 80 else value[:77] + '...'}: {item['msg']}; correct it or publish again"
