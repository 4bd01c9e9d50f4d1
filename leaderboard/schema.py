"""Publishing rows as JSON, and checking published rows: their schema, place, keys, ranges and arithmetic."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from math import isclose
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from ntbench.errors import UserError
from ntbench.measure.curves import so_far
from ntbench.measure.ranking import MAX_DROP
from ntbench.measure.tables import leaderboard_table
from ntbench.suite import Suite
from ntbench.types import MethodSpec, Result

from .published import COUNTS, FLAGS, METRICS, TEXTS, Published, PublishedCell, PublishedRow, read, suite_of

__all__ = ["Published", "PublishedCell", "PublishedRow", "publish", "recomputed", "validate"]

MAX_BYTES = 250_000
DECIMALS = 6
TOLERANCE = 1e-5
FRACTIONS = ("source_before", "source_after", "zero_shot", "sparsity")
AREAS = ("paper_slc", "grid_slc", "auto_slc", "auto_gap", "slc")
INTERVALS = (*AREAS, "drop")
# What the published cells decide, and so what anybody can recompute.
FROM_CELLS = (
    *(f"{name}{end}" for name in AREAS for end in ("", "_low", "_high")),
    *("slc_norm", "selection", "paper_attack", "paper_mask", "grid_attack", "worst_attack", "worst_attacks"),
    *("ranked", "control", "thin", *COUNTS),
)
_LABEL = re.compile(r"[\w(][\w ()=,.+-]*")
T = TypeVar("T")


def publish(results: Iterable[Result], suite: Suite, folder: Path) -> list[Path]:
    """Write one file per defense and task below the results folder and return their paths.

    The attacker chooses on validation data; inapplicable cells are left out. The same results give the same bytes.
    Raises UserError where there are no results, a label cannot name a folder, or results of different recipes,
    protocols or data are mixed.
    """
    every = sorted(results, key=lambda result: result.cell.key)
    found = [result for result in every if result.status != "inapplicable"]
    if not found:
        raise UserError(f"no results of {suite.protocol} to publish; run `ntbench run {suite.name}` first")
    board, texts = leaderboard_table(every, suite), {}
    for (task, defense), rows in board.groupby(["task", "defense"], sort=False):
        if not _LABEL.fullmatch(str(defense)):
            raise UserError(f"defense label {defense!r} cannot name a folder; relabel it with letters, digits, _ - . +")
        mine = [r for r in found if (r.cell.task.name, r.cell.defense.label) == (task, defense)]
        file = _published(mine, rows, suite)
        texts[folder / file.place] = text = file.text()
        if len(text.encode()) > MAX_BYTES:
            raise UserError(f"{file.place}: {len(text)} bytes exceed {MAX_BYTES}; publish a suite with fewer cells")
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(texts)


def validate(folder: Path) -> list[str]:
    """Return every problem of the published rows below a results folder, none where they are sound."""
    problems: list[str] = []
    groups: dict[tuple[str, str], list[tuple[Path, Published]]] = {}
    for path in sorted(folder.rglob("*.json")):
        try:
            file = read(path)
        except UserError as error:
            problems += str(error).splitlines()
            continue
        own = [f"{path}: {problem}" for problem in _own_problems(path.relative_to(folder), path.stat().st_size, file)]
        problems += own
        if not own:
            groups.setdefault((file.place.parts[0], file.task.name), []).append((path, file))
    for group in groups.values():
        problems += _arithmetic(group)
    return problems


def recomputed(files: Sequence[Published]) -> pd.DataFrame:
    """Return the leaderboard of one task's files from their cells; what costs and protection decide is missing.

    Raises UserError for files that must not stand together.
    """
    for name in ("protocol", "task", "arch", "pretrain", "budget", "precision", "seeds", "ratios"):
        _only((getattr(file, name) for file in files), name)
    return leaderboard_table([result for file in files for result in file.results()], suite_of(files))


def _published(results: Sequence[Result], rows: pd.DataFrame, suite: Suite) -> Published:
    cells = [result.cell for result in results]
    order = [label for entry in suite.attacks for label, _ in entry.variants()]
    labels = order + sorted({cell.attack.label for cell in cells} - set(order))
    specs = {(cell.attack.label, cell.mask): cell.attack for cell in cells}
    for place, spec in specs.items():
        _only((spec, *(c.attack for c in cells if (c.attack.label, c.mask) == place)), f"attack {place[0]}")
    attacks = [specs[place] for place in sorted(specs, key=lambda place: (labels.index(place[0]), place[1]))]
    origins = [result.provenance for result in results if result.provenance]
    return Published(
        protocol=suite.protocol,
        task=cells[0].task,
        arch=_only((cell.arch for cell in cells), "arch"),
        pretrain=_only((cell.pretrain for cell in cells), "pretrain"),
        budget=_only((cell.budget for cell in cells), "budget"),
        precision=_only((cell.precision for cell in cells), "precision"),
        seeds=suite.seeds,
        ratios=suite.ratios,
        paper=suite.paper_setting(cells[0].defense.label),
        defense=_only((cell.defense for cell in cells), "defense"),
        attacks=tuple(attacks),
        data={name: value for origin in origins for name, value in sorted(origin.data.items())},
        versions=_joined(origin.versions for origin in origins),
        device=", ".join(sorted({origin.device for origin in origins})),
        rows=tuple(_row(record) for record in rows.sort_values("mask").to_dict("records")),
        cells=tuple(_cells(results, attacks)),
    )


def _row(record: dict[Any, Any]) -> PublishedRow:
    metrics = {name: None if pd.isna(record[name]) else round(float(record[name]), DECIMALS) for name in METRICS}
    return PublishedRow(
        mask=record["mask"],
        metrics=metrics,
        **{name: str(record[name]) for name in TEXTS},
        **{name: bool(record[name]) for name in FLAGS},
        **{name: int(record[name]) for name in COUNTS},
    )


def _cells(results: Sequence[Result], attacks: Sequence[MethodSpec]) -> list[PublishedCell]:
    # Accuracies keep every digit: rounded ones could change which of two close attacks is chosen.
    cells = []
    for result in results:
        cell, run = result.cell, result.trajectory
        good = result.status == "ok" and bool(run.test)
        held: list[float | None] = [None, None]
        if good:
            held = [float(array[-1]) for array in so_far("val", np.array(run.val), np.array(run.test))]
        cells.append(
            PublishedCell(
                attack=attacks.index(cell.attack),
                ratio=cell.ratio,
                samples=result.samples,
                seed=cell.seed,
                status=result.status,
                val=held[0],
                test=held[1],
                last=run.test[-1] if good else None,
                key=cell.key,
            )
        )
    return sorted(cells, key=lambda cell: (cell.attack, cell.ratio, cell.seed, cell.key))


def _only(values: Iterable[T], what: str) -> T:
    found = list(values)
    other = next((value for value in found if value != found[0]), None)
    if other is not None:
        raise UserError(f"{what}: {found[0]} and {other} are mixed; publish each from its own run folder")
    return found[0]


def _joined(versions: Iterable[dict[str, str]]) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for items in versions:
        for name, value in items.items():
            found.setdefault(name, set()).add(value)
    return {name: ", ".join(sorted(found[name])) for name in sorted(found)}


def _own_problems(place: Path, size: int, file: Published) -> Iterator[str]:
    if place != file.place:
        yield f"path = {str(place)!r}: the content belongs at {str(file.place)!r}; move the file"
    if size > MAX_BYTES:
        yield f"size = {size} bytes: more than {MAX_BYTES}; publish a suite with fewer cells"
    if wrong := sorted({cell.attack for cell in file.cells if not 0 <= cell.attack < len(file.attacks)}):
        yield f"cells.attack = {wrong}: the file lists {len(file.attacks)} attacks; publish again"
        return
    for i, (cell, result) in enumerate(zip(file.cells, file.results(), strict=True)):
        if cell.key != result.cell.key:
            yield f"cells.{i}.key = {cell.key!r}: its recipe has the key {result.cell.key!r}; publish again"
        if (cell.status == "ok") != (None not in (cell.val, cell.test, cell.last)):
            yield f"cells.{i}.status = {cell.status!r}: `ok` and no other goes with accuracies; publish again"
    for row in file.rows:
        yield from (f"rows.{row.mask}.{problem}" for problem in _row_problems(row))


def _row_problems(row: PublishedRow) -> Iterator[str]:
    metrics = {name: value for name, value in row.metrics.items() if value is not None}
    for name, value in metrics.items():
        if (name in FRACTIONS or name.endswith("_censored")) and not 0 <= value <= 1:
            yield f"{name} = {value}: a fraction lies in [0, 1], percent are not stored; publish again"
        if name in ("drop", "slc_norm") and not -1 <= value <= 1:
            yield f"{name} = {value}: a difference of accuracies lies in [-1, 1]; publish again"
        if ("overhead" in name or name.endswith(("_ratio", "_steps"))) and value < 0:
            yield f"{name} = {value}: a cost cannot be negative; publish again"
    for name in INTERVALS:
        ends = [metrics.get(key) for key in (f"{name}_low", name, f"{name}_high")]
        known = [end for end in ends if end is not None]
        if any(low > high + TOLERANCE for low, high in pairwise(known)):
            yield f"{name} = {metrics.get(name)}: lies outside its interval; publish again"
    numbers = (metrics.get("slc_high"), metrics.get("overhead_steps_90"), metrics.get("drop"))
    works = None not in numbers and numbers[0] < 0 and numbers[1] >= 1 and numbers[2] <= MAX_DROP + TOLERANCE  # type: ignore[operator]
    if row.holds and not works:
        yield f"holds = True: slc_high, overhead_steps_90 and drop are {numbers}; publish again"


def _arithmetic(group: Sequence[tuple[Path, Published]]) -> Iterator[str]:
    try:
        board = recomputed([file for _, file in group])
    except (UserError, ValueError) as error:
        yield f"{group[0][0].name}: {error}"
        return
    records = {(record["defense"], record["mask"]): record for record in board.to_dict("records")}
    for path, file in group:
        stored = {row.mask: row.record() for row in file.rows}
        masks = {mask for defense, mask in records if defense == file.defense.label}
        if set(stored) != masks:
            yield f"{path}: rows = {sorted(stored)}: the cells make the rows {sorted(masks)}; publish again"
            continue
        for mask, row in stored.items():
            for name in FROM_CELLS:
                if not _same(row[name], records[file.defense.label, mask][name]):
                    yield (
                        f"{path}: rows.{mask}.{name} = {row[name]!r}: the cells, against those of scratch, give "
                        f"{records[file.defense.label, mask][name]!r}; publish all rows of one run again"
                    )


def _same(stored: Any, computed: Any) -> bool:
    if stored is None or pd.isna(computed):
        return stored is None and bool(pd.isna(computed))
    if isinstance(stored, float):
        return isclose(stored, computed, abs_tol=TOLERANCE)
    return bool(stored == computed)
