"""Results as pandas tables, one row a cell or one an end, from which every number of a board can be worked out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from ntbench.types import SETTLED, Protection, Result, Trajectory, digest

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


def results_table(results: Iterable[Result]) -> pd.DataFrame:
    """Return one row per cell, inapplicable or not, in the order of the recipes, whatever the order of the results.

    `test`, `val`, `own` and the costs are those of the largest budget in `steps` that the cell has a number for.
    """
    table = pd.DataFrame([_cell(result) for result in results], columns=list(COLUMNS))
    table = table.astype(
        dict.fromkeys(COUNTS + IMAGES, "Int64") | dict.fromkeys(FRACTIONS + TIMING + UNITS, "float64")
    ).round(DECIMALS)
    return table.sort_values([*PLACE, "key"], ignore_index=True)


def trajectories_table(results: Iterable[Result]) -> pd.DataFrame:
    """Return one row per cell and budget: scores, costs, and which test images were right (base64 of packed bits)."""
    rows: list[tuple[Any, ...]] = []
    for result in results:
        run, place = result.trajectory, _place(result)
        columns = (run.step, run.samples, run.flops, run.seconds, run.val, run.test, run.own, run.correct)
        start = (result.cell.key, *(place[name] for name in RUN))
        rows += [(*start, *point) for point in zip(*columns, strict=True)]
    table = pd.DataFrame(rows, columns=list(PATH)).astype({"own": "float64"})
    return table.round(DECIMALS).sort_values([*RUN, "key", "step"], ignore_index=True)


def failures_table(results: Iterable[Result]) -> pd.DataFrame:
    """Return one row per cell that failed, with the first line of its reason; what is inapplicable did not fail."""
    names = ["task", "track", "defense", "attack", "mask", "knowledge", "samples", "seed", "status", "error"]
    return results_table(r for r in results if r.status not in SETTLED)[names]


def coverage_table(results: Iterable[Result]) -> pd.DataFrame:
    """Return per row and attack how many cells ran, failed, and do not apply, with the first reason in words."""
    place = list(COVERAGE[:5])
    rows = [{name: value for name, value in _place(r).items() if name in place} | _outcome(r) for r in results]
    table = pd.DataFrame(rows, columns=list(COVERAGE))
    sums = {"runs": "sum", "failed": "sum", "not_applicable": "sum", "reason": "max"}
    return table.groupby(place, as_index=False, sort=True).agg(sums)[list(COVERAGE)]


def _outcome(result: Result) -> dict[str, Any]:
    refused = result.status == "inapplicable"
    return {
        "runs": int(not refused),
        "failed": int(result.status not in SETTLED),
        "not_applicable": int(refused),
        "reason": _first_line(result.error) if refused else "",
    }


def _place(result: Result) -> dict[str, Any]:
    cell = result.cell
    return {
        "protocol": cell.protocol,
        "task": cell.task.name,
        "arch": cell.arch.name,
        "track": result.track,
        "defense": cell.defense.label,
        "attack": cell.attack.label,
        "mask": cell.mask,
        "knowledge": cell.knowledge,
        "samples": cell.samples,
        "seed": cell.seed,
    }


def _cell(result: Result) -> dict[str, Any]:
    cell, done = result.cell, result.protection or Protection()
    return {
        **_place(result),
        **{name: getattr(done, name) for name in Protection.model_fields if name in COLUMNS},
        **{name: getattr(result, name) for name in ("images", "originals", "source_images", "paid", "choice")},
        **_last(result.trajectory),
        "status": result.status,
        "error": _first_line(result.error),
        # Papers' protocols count passes.
        "t90": getattr(cell.budget, "t90", None),
        "horizon": getattr(cell.budget, "horizon", None),
        "budget": cell.budget.steps,
        "attack_name": cell.attack.name,
        "defense_name": cell.defense.name,
        "params": " ".join(f"{name}={value}" for name, value in sorted(cell.attack.params.items())),
        "data": digest(result.provenance.data) if result.provenance else "",
        "version": result.provenance.versions.get("ntbench", "") if result.provenance else "",
        "key": cell.key,
        "cell_seconds": result.seconds,
        "peak_mb": result.peak_mb,
    }


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _last(run: Trajectory) -> dict[str, Any]:
    columns = {"steps": run.step, "shown": run.samples, "flops": run.flops, "seconds": run.seconds}
    scores = {"test": run.test, "val": run.val, "own": run.own}
    return {name: column[-1] if column else None for name, column in (columns | scores).items()}
