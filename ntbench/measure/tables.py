"""Results as pandas tables, one row a cell or one an end, from which every number of a board can be worked out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from ntbench.errors import first_line
from ntbench.types import SETTLED, Columns, MethodSpec, Protection, Result, columns_of, digest

PLACE = ("protocol", "task", "arch", "track", "defense", "attack", "mask", "knowledge", "samples", "seed")
TIMING = ("seconds", "cell_seconds", "pretrain_seconds", "protect_seconds", "peak_mb")
"""All that may differ between two runs of one cell, in seconds and MiB."""
COUNTS = ("steps", "budget", "shown", "flops", "paid", "pretrain_flops", "protect_flops", "protect_steps")
IMAGES = ("images", "originals", "source_images")
UNITS = ("t90", "horizon")
FRACTIONS = ("test", "val", "own", "source_before", "source_after", "zero_shot", "sparsity")
COLUMNS = (
    *PLACE,
    *("status", "error", "choice", "test", "val", "own", "t90", "horizon", "budget", "steps", "shown", "flops", "paid"),
    *("source_before", "source_after", "zero_shot", "sparsity", "pretrain_flops", "protect_flops", "protect_steps"),
    *("images", "originals", "source_images", "clean", "kept", "attack_name", "defense_name", "params"),
    *("data", "version", "key"),
    *TIMING,
)
COORDINATES = ("task", "defense", "attack", "mask", "samples", "seed", "knowledge")
"""What a cell's own coordinates are, in their order."""
RUN = tuple(name for name in PLACE if name not in ("protocol", "arch"))
PATH = ("key", *RUN, "step", "shown", "flops", "seconds", "val", "test", "own", "correct")
COVERAGE = ("task", "track", "defense", "mask", "attack", "runs", "failed", "not_applicable", "reason")
DECIMALS = 6
NOTHING = Protection()
WHERE: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "protocol": ("protocol", str),
    "task": ("task", lambda task: task.name),
    "arch": ("arch", lambda arch: arch.name),
    "track": ("track", str),
    "defense": ("defense", lambda spec: spec.label),
    "attack": ("attack", lambda spec: spec.label),
    "mask": ("attack", lambda spec: spec.mask),
    "knowledge": ("knowledge", str),
}
"""Of which part of a result a place in the tables is told, and how."""
LAST = {
    "steps": "step",
    "shown": "samples",
    "flops": "flops",
    "seconds": "seconds",
    "test": "test",
    "val": "val",
    "own": "own",
}
RUNS = {name: {"shown": "samples"}.get(name, name) for name in PATH[len(RUN) + 1 :]}
"""Columns of trajectories, and of cells at their largest budget, and what they are called in a result."""


def results_table(results: Iterable[Result]) -> pd.DataFrame:
    """Return one row per cell, inapplicable or not, in the order of the recipes, whatever the order of the results.

    `test`, `val`, `own` and the costs are those of the largest budget in `steps` that the cell has a number for.
    """
    held = columns_of(results)
    table = pd.DataFrame(_cells(held), columns=list(COLUMNS), dtype=None if len(held) else object)
    kinds = dict.fromkeys(COUNTS + IMAGES, "Int64") | dict.fromkeys(FRACTIONS + TIMING + UNITS, "float64")
    table = table.astype(kinds).round(DECIMALS)
    return table.sort_values([*PLACE, "key"], ignore_index=True)


def trajectories_table(results: Iterable[Result]) -> pd.DataFrame:
    """Return one row per cell and budget: scores, costs, and which test images were right (base64 of packed bits)."""
    held = columns_of(results)
    cells = pd.DataFrame({"key": held.keys.tolist(), **places_of(held, RUN)})
    order = cells.sort_values([*RUN, "key"]).index
    held = held.take(order.to_numpy())
    columns = {name: held.runs[field] for name, field in RUNS.items() if field != "correct"}
    # A cell's place stands once a budget; budgets rise within a cell.
    cell = np.repeat(np.arange(len(held)), held.lengths)
    places = cells.loc[order].iloc[cell].reset_index(drop=True)
    table = pd.concat([places, pd.DataFrame({**columns, "correct": held.correct.listed()})], axis=1)[list(PATH)]
    table = (table if len(table) else table.astype(object)).astype({"own": "float64"})
    return table.iloc[np.lexsort((columns["step"], cell))].reset_index(drop=True).round(DECIMALS)


def failures_table(results: Iterable[Result]) -> pd.DataFrame:
    """Return one row per cell that failed, with the first line of its reason; what is inapplicable did not fail."""
    names = ["task", "track", "defense", "attack", "mask", "knowledge", "samples", "seed", "status", "error"]
    return results_table(columns_of(results).failed)[names]


def coverage_table(results: Iterable[Result]) -> pd.DataFrame:
    """Return per row and attack how many cells ran, failed, and do not apply, with the first reason in words."""
    held, place = columns_of(results), list(COVERAGE[:5])
    refused = held.parts["status"].coded(str, ["inapplicable"]) == 0
    columns = places_of(held, COVERAGE[:5]) | {
        "runs": (~refused).astype(np.int64),
        "failed": (held.parts["status"].coded(str, SETTLED) < 0).astype(np.int64),
        "not_applicable": refused.astype(np.int64),
        "reason": _told(held, "error", first_line),
    }
    table = pd.DataFrame(columns, columns=list(COVERAGE))
    table["reason"] = table["reason"].where(refused, "")
    sums = {"runs": "sum", "failed": "sum", "not_applicable": "sum", "reason": "max"}
    return table.groupby(place, as_index=False, sort=True).agg(sums)[list(COVERAGE)]


def drawn_table(results: Iterable[Result]) -> pd.DataFrame:
    """Return one row per cell of the track `target` whose models made images, as base64 of PNG files.

    `source` are those of the release, `target` those after the attack.
    """
    there = columns_of(results).where("drawn", bool).where("track", lambda track: track == "target")
    held = [(r.cell, r.protection, r.drawn) for r in there if r.protection and r.cell.mask == "dense"]
    rows = [
        (cell.task.name, cell.defense.label, cell.attack.label, cell.samples, cell.seed, protection.drawn, drawn)
        for cell, protection, drawn in held
    ]
    return pd.DataFrame(rows, columns=["task", "defense", "attack", "samples", "seed", "source", "target"])


def _told(columns: Columns, part: str, tell: Callable[[Any], Any]) -> Any:
    """Return what is told of a part, as a column; it is worked out once a value."""
    factor = columns.parts[part]
    there, rows = np.unique(factor.codes, return_inverse=True)
    return pd.Series([tell(factor.values[code]) for code in there.tolist()]).array.take(rows)


def places_of(columns: Columns, names: Iterable[str] = PLACE) -> dict[str, Any]:
    """Return where results stand, as columns."""
    return {name: _told(columns, *WHERE[name]) if name in WHERE else columns.numbers[name] for name in names}


def _cells(columns: Columns) -> dict[str, Any]:
    def of(part: str, name: str, default: Any = None) -> Any:
        return _told(columns, part, lambda value: getattr(value, name, default))

    return {
        **places_of(columns),
        **{
            name: _told(columns, "protection", partial(_of_protection, name))
            for name in Protection.model_fields
            if name in COLUMNS
        },
        **{name: _told(columns, name, lambda value: value) for name in (*IMAGES, "choice", "status")},
        **{name: columns.numbers[name] for name in ("paid", "peak_mb")},
        **{name: _last(columns, field) for name, field in LAST.items()},
        "error": _told(columns, "error", first_line),
        # Papers' protocols count passes.
        "t90": of("budget", "t90"),
        "horizon": of("budget", "horizon"),
        "budget": of("budget", "steps"),
        "attack_name": of("attack", "name"),
        "defense_name": of("defense", "name"),
        "params": _told(columns, "attack", _params),
        "data": _told(columns, "provenance", lambda origin: digest(origin.data) if origin else ""),
        "version": _told(columns, "provenance", lambda origin: origin.versions.get("ntbench", "") if origin else ""),
        "key": columns.keys.tolist(),
        "cell_seconds": columns.numbers["seconds"],
    }


def _of_protection(name: str, held: Protection | None) -> Any:
    return getattr(held or NOTHING, name)


def _params(attack: MethodSpec) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(attack.params.items()))


def _last(columns: Columns, name: str) -> Any:
    """Return the last number of each trajectory, missing where it has none."""
    there, run = columns.lengths > 0, columns.runs[name]
    last = np.append(run, run.dtype.type(0))[np.where(there, columns.starts[1:] - 1, -1)]
    return np.where(there, last, np.nan) if run.dtype == np.float64 else pd.arrays.IntegerArray(last, ~there)
