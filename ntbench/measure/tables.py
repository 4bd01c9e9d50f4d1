"""Results as pandas tables, one row a cell or one an end, from which every number of a board can be worked out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from ntbench.errors import first_line
from ntbench.types import SETTLED, MethodSpec, Protection, Result, digest

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
RUN = tuple(name for name in PLACE if name not in ("protocol", "arch"))
PATH = ("key", *RUN, "step", "shown", "flops", "seconds", "val", "test", "own", "correct")
COVERAGE = ("task", "track", "defense", "mask", "attack", "runs", "failed", "not_applicable", "reason")
DECIMALS = 6
NOTHING = Protection()
WHERE: dict[str, Callable[[Result], Any]] = {
    "protocol": lambda r: r.cell.protocol,
    "task": lambda r: r.cell.task.name,
    "arch": lambda r: r.cell.arch.name,
    "track": lambda r: r.track,
    "defense": lambda r: r.cell.defense.label,
    "attack": lambda r: r.cell.attack.label,
    "mask": lambda r: r.cell.mask,
    "knowledge": lambda r: r.cell.knowledge,
    "samples": lambda r: r.cell.samples,
    "seed": lambda r: r.cell.seed,
}
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
    held = list(results)
    table = pd.DataFrame(_cells(held), columns=list(COLUMNS), dtype=None if held else object)
    kinds = dict.fromkeys(COUNTS + IMAGES, "Int64") | dict.fromkeys(FRACTIONS + TIMING + UNITS, "float64")
    table = table.astype(kinds).round(DECIMALS)
    return table.sort_values([*PLACE, "key"], ignore_index=True)


def trajectories_table(results: Iterable[Result]) -> pd.DataFrame:
    """Return one row per cell and budget: scores, costs, and which test images were right (base64 of packed bits)."""
    held = list(results)
    cells = pd.DataFrame({"key": [r.cell.key for r in held], **_places(held, RUN)})
    order = cells.sort_values([*RUN, "key"]).index
    runs = [held[i].trajectory for i in order]
    # A cell's place stands once a budget; budgets rise within a cell.
    columns = {name: list(chain.from_iterable(getattr(run, field) for run in runs)) for name, field in RUNS.items()}
    cell = np.repeat(np.arange(len(runs)), [len(run.step) for run in runs])
    places = cells.loc[order].iloc[cell].reset_index(drop=True)
    table = pd.concat([places, pd.DataFrame(columns)], axis=1)[list(PATH)]
    table = (table if len(table) else table.astype(object)).astype({"own": "float64"})
    return table.iloc[np.lexsort((columns["step"], cell))].reset_index(drop=True).round(DECIMALS)


def failures_table(results: Iterable[Result]) -> pd.DataFrame:
    """Return one row per cell that failed, with the first line of its reason; what is inapplicable did not fail."""
    names = ["task", "track", "defense", "attack", "mask", "knowledge", "samples", "seed", "status", "error"]
    return results_table(r for r in results if r.status not in SETTLED)[names]


def coverage_table(results: Iterable[Result]) -> pd.DataFrame:
    """Return per row and attack how many cells ran, failed, and do not apply, with the first reason in words."""
    held, place = list(results), list(COVERAGE[:5])
    refused = [r.status == "inapplicable" for r in held]
    columns = _places(held, COVERAGE[:5]) | {
        "runs": [int(not off) for off in refused],
        "failed": [int(r.status not in SETTLED) for r in held],
        "not_applicable": list(map(int, refused)),
        "reason": [first_line(r.error) if off else "" for r, off in zip(held, refused, strict=True)],
    }
    table = pd.DataFrame(columns, columns=list(COVERAGE))
    sums = {"runs": "sum", "failed": "sum", "not_applicable": "sum", "reason": "max"}
    return table.groupby(place, as_index=False, sort=True).agg(sums)[list(COVERAGE)]


def drawn_table(results: Iterable[Result]) -> pd.DataFrame:
    """Return one row per cell of the track `target` whose models made images, as base64 of PNG files.

    `source` are those of the release, `target` those after the attack.
    """
    names = ["task", "defense", "attack", "samples", "seed"]
    held = [r for r in results if r.drawn and r.protection and r.track == "target" and r.cell.mask == "dense"]
    images = {"source": [r.protection and r.protection.drawn for r in held], "target": [r.drawn for r in held]}
    return pd.DataFrame(_places(held, names) | images)


def _places(results: Sequence[Result], names: Iterable[str] = PLACE) -> dict[str, list[Any]]:
    """Return where results stand, as columns."""
    return {name: [WHERE[name](r) for r in results] for name in names}


def _cells(results: Sequence[Result]) -> dict[str, list[Any]]:
    cells, origins = [r.cell for r in results], [r.provenance for r in results]
    protections = [r.protection or NOTHING for r in results]
    params, data = _once(_params), _once(lambda origin: digest(origin.data) if origin else "")
    return {
        **_places(results),
        **{name: [getattr(p, name) for p in protections] for name in Protection.model_fields if name in COLUMNS},
        **{name: [getattr(r, name) for r in results] for name in ("images", "originals", "source_images")},
        **{name: [getattr(r, name) for r in results] for name in ("paid", "choice", "status", "peak_mb")},
        **{name: [_last(getattr(r.trajectory, field)) for r in results] for name, field in LAST.items()},
        "error": [first_line(r.error) for r in results],
        # Papers' protocols count passes.
        "t90": [getattr(cell.budget, "t90", None) for cell in cells],
        "horizon": [getattr(cell.budget, "horizon", None) for cell in cells],
        "budget": [cell.budget.steps for cell in cells],
        "attack_name": [cell.attack.name for cell in cells],
        "defense_name": [cell.defense.name for cell in cells],
        "params": [params(cell.attack) for cell in cells],
        "data": [data(origin) for origin in origins],
        "version": [origin.versions.get("ntbench", "") if origin else "" for origin in origins],
        "key": [cell.key for cell in cells],
        "cell_seconds": [r.seconds for r in results],
    }


def _params(attack: MethodSpec) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(attack.params.items()))


def _once(work: Callable[[Any], str]) -> Callable[[Any], str]:
    """Return the same work, done once for objects that many results share and that outlive the caller's loop."""
    held: dict[int, str] = {}

    def found(value: Any) -> str:
        if id(value) not in held:
            held[id(value)] = work(value)
        return held[id(value)]

    return found


def _last(column: Sequence[Any]) -> Any:
    return column[-1] if column else None
