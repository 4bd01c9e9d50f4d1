"""Published rows: what one defense did on one task, with every cell's accuracies, so that anybody can recompute it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError, field_validator

from ntbench.errors import UserError
from ntbench.measure.ranking import COLUMNS
from ntbench.suite import AttackEntry, DefenseEntry, PaperSetting, Suite
from ntbench.types import (
    Arch,
    Budget,
    Cell,
    Mask,
    MethodSpec,
    Precision,
    Provenance,
    Recipe,
    Result,
    Status,
    Task,
    Training,
    Trajectory,
)

TEXTS = (
    *("needs", "selection", "paper_attack", "paper_mask", "grid_attack", "auto_choice"),
    *("worst_attack", "worst_attacks", "note"),
)
FLAGS = ("ranked", "control", "holds", "thin")
COUNTS = ("seeds", "cells", "failed")
# Ranks depend on the other rows of the folder: they are computed where the rows stand together.
PLACE = ("rank", "rank_low", "rank_high", "task", "defense", "mask")
METRICS = tuple(name for name in COLUMNS if name not in (*TEXTS, *FLAGS, *COUNTS, *PLACE))

Accuracy = Annotated[float, Field(ge=0, le=1, strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class PublishedCell(NamedTuple):
    """One cell; `attack` counts in the file's list of attacks, accuracies are None where the cell failed.

    `val` and `test` are those of the step that is best on validation data; `last` is on test data at the last step.
    """

    attack: int
    ratio: float
    samples: int | None
    seed: int
    status: Status
    val: Accuracy | None
    test: Accuracy | None
    last: Accuracy | None
    key: str


class PublishedRow(Recipe):
    """One row of the leaderboard; metrics are numbers, None where there is none."""

    mask: Mask
    ranked: bool
    control: bool
    holds: bool
    thin: bool
    seeds: int
    cells: int
    failed: int
    needs: str
    selection: Literal["val"]
    paper_attack: str
    paper_mask: str
    grid_attack: str
    auto_choice: str
    worst_attack: str
    worst_attacks: str
    note: str
    metrics: dict[str, Number | None]

    @field_validator("metrics")
    @classmethod
    def _complete(cls, metrics: dict[str, float | None]) -> dict[str, float | None]:
        if wrong := set(metrics) ^ set(METRICS):
            raise ValueError(f"the names {sorted(wrong)} are missing or unknown; publish again with this version")
        return metrics

    def record(self) -> dict[str, Any]:
        """Return the row under the column names of the leaderboard, without its rank."""
        return self.model_dump(exclude={"metrics"}) | self.metrics


class Published(Recipe):
    """One file: a defense on a task."""

    schema_version: Literal[2] = 2
    protocol: str = Field(pattern=r"^[a-z][a-z0-9_]*-[1-9][0-9]*$")
    task: Task
    arch: Arch
    pretrain: Training
    budget: Budget
    precision: Precision
    seeds: tuple[int, ...] = Field(min_length=1)
    ratios: tuple[float, ...] = Field(min_length=2)
    paper: PaperSetting
    defense: MethodSpec
    attacks: tuple[MethodSpec, ...] = Field(min_length=1)
    data: dict[str, str]
    versions: dict[str, str]
    device: str
    rows: tuple[PublishedRow, ...]
    cells: tuple[PublishedCell, ...]

    @property
    def place(self) -> Path:
        """Return where the file belongs, below the results folder."""
        return Path(self.protocol.rpartition("-")[0], self.defense.label, f"{self.task.name}.json")

    def text(self) -> str:
        """Return the file's text: sorted keys, one cell a line, the same for the same content."""
        content = self.model_dump(mode="json")
        lines = ",\n".join(f"  {json.dumps(cell)}" for cell in content.pop("cells"))
        head = json.dumps(content | {"cells": []}, indent=1, sort_keys=True, allow_nan=False)
        return head.replace('\n "cells": []', f'\n "cells": [\n{lines}\n ]', 1) + "\n"

    def results(self) -> list[Result]:
        """Return the cells as results of the chosen point and the last, without costs and protection."""
        return [self._result(cell) for cell in self.cells]

    def _result(self, published: PublishedCell) -> Result:
        cell = Cell(
            protocol=self.protocol,
            task=self.task,
            arch=self.arch,
            pretrain=self.pretrain,
            budget=self.budget,
            defense=self.defense,
            attack=self.attacks[published.attack],
            ratio=published.ratio,
            seed=published.seed,
            precision=self.precision,
        )
        run = Trajectory()
        if published.val is not None and published.test is not None and published.last is not None:
            nothing = {"samples": (0, 0), "flops": (0, 0), "seconds": (0.0, 0.0)}
            # What the last point has on validation data is not published; no more than the chosen, which comes first.
            val, test = (published.val, published.val), (published.test, published.last)
            run = Trajectory(step=(0, self.budget.steps), val=val, test=test, **nothing)
        origin = Provenance(data=self.data, versions=self.versions, device=self.device)
        return Result(cell=cell, status=published.status, samples=published.samples, trajectory=run, provenance=origin)


def read(path: Path) -> Published:
    """Read one file; raises UserError with one line per mistake: file, key, value, reason."""
    try:
        return Published.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError("\n".join(f"{path}: {_explain(item)}" for item in error.errors())) from None


def suite_of(files: Sequence[Published]) -> Suite:
    """Return the suite that files of one task stand for, with their attacks in an order that all files keep.

    Raises ValueError where their orders contradict each other.
    """
    first = files[0]
    name, _, version = first.protocol.rpartition("-")
    labels = _order(files)
    return Suite(
        name=name,
        version=int(version),
        summary="published rows",
        seeds=first.seeds,
        ratios=first.ratios,
        arch=first.arch,
        pretrain=first.pretrain,
        budget=first.budget,
        precision=first.precision,
        paper=PaperSetting(attack=labels[0]),
        tasks=tuple({file.task.name: file.task for file in files}.values()),
        defenses=tuple(
            DefenseEntry(name=file.defense.name, label=file.defense.label, paper=_paper(file, labels))
            for file in {file.defense.label: file for file in files}.values()
        ),
        attacks=_entries(files, labels),
    )


def _order(files: Sequence[Published]) -> list[str]:
    # The first of two equal attacks is chosen, so that each file's order decides its numbers.
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for file in files:
        labels = list(dict.fromkeys(spec.label for spec in file.attacks))
        sorter.add(labels[0])
        for before, after in pairwise(labels):
            sorter.add(after, before)
    return list(sorter.static_order())


def _entries(files: Sequence[Published], labels: Sequence[str]) -> tuple[AttackEntry, ...]:
    facing: dict[tuple[str, str], list[str]] = {}
    for file in files:
        for spec in file.attacks:
            mask = "keep" if spec.params.get("mask") == "keep" else "dense"
            facing.setdefault((spec.label, mask), []).append(file.defense.label)
    # A label is a format string in a suite.
    return tuple(
        AttackEntry(
            name="-", label=x.replace("{", "{{").replace("}", "}}"), params={"mask": mask}, against=tuple(defenses)
        )
        for (x, mask), defenses in sorted(facing.items(), key=lambda item: (labels.index(item[0][0]), item[0][1]))
    )


def _paper(file: Published, labels: Iterable[str]) -> PaperSetting | None:
    return file.paper if file.paper.attack in labels else None


def _explain(item: Any) -> str:
    parts = [str(part) for part in item["loc"]]
    if len(parts) == 3 and parts[0] == "cells":
        parts[2] = PublishedCell._fields[int(parts[2])] if parts[2].isdigit() else parts[2]
    key = ".".join(parts) or "file"
    value = repr(item["input"])
    return f"{key} = {value if len(value) < 80 else value[:77] + '...'}: {item['msg']}; correct it or publish again"
