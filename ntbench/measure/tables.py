"""Results as pandas tables: cells, trajectories, failures, coverage, learning curves, the heat map, the leaderboard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from ntbench.measure.curves import Curves, checked, collect
from ntbench.measure.ranking import leaderboard_table, reference, seed_areas
from ntbench.suite import Suite
from ntbench.types import SETTLED, Protection, Result, Trajectory, digest

__all__ = [
    "TIMING",
    "coverage_table",
    "failures_table",
    "heatmap_table",
    "leaderboard_table",
    "learning_curves",
    "results_table",
    "trajectories_table",
]

PLACE = ("protocol", "task", "arch", "defense", "attack", "mask", "ratio", "samples", "seed")
TIMING = ("seconds", "cell_seconds", "pretrain_seconds", "protect_seconds", "peak_mb")
COUNTS = ("samples", "steps", "train_samples", "flops", "pretrain_flops", "protect_flops")
FRACTIONS = ("test_accuracy", "val_accuracy", "source_before", "source_after", "zero_shot", "sparsity")
COLUMNS = (
    *PLACE,
    *("status", "error", "choice", "test_accuracy", "val_accuracy", "steps", "train_samples", "flops"),
    *("source_before", "source_after", "zero_shot", "sparsity", "pretrain_flops", "protect_flops"),
    *("data", "version", "key"),
    *TIMING,
)
COVERAGE = ("task", "defense", "mask", "attack", "runs", "failed", "not_applicable", "reason")
DECIMALS = 6


def results_table(results: Iterable[Result]) -> pd.DataFrame:
    """Return one row per cell, inapplicable or not, in the order of the recipes, whatever the order of the results.

    Accuracies are those of the last scored point and stand on `ok` rows alone: where a diverged run stopped is no
    result. The last columns, TIMING, are in seconds and MiB and are all that may differ between two runs.
    """
    table = pd.DataFrame([_cell(result) for result in results], columns=list(COLUMNS))
    table = table.astype(dict.fromkeys(COUNTS, "Int64") | dict.fromkeys(FRACTIONS + TIMING, "float64")).round(DECIMALS)
    return table.sort_values([*PLACE, "key"], ignore_index=True)


def trajectories_table(results: Iterable[Result]) -> pd.DataFrame:
    """Return one row per cell, scored step and split, with the costs so far and the accuracy there."""
    names = ("key", "task", "defense", "attack", "mask", "ratio", "samples_n", "seed")
    columns = (*names, "step", "train_samples", "flops", "seconds", "split", "value")
    rows: list[tuple[Any, ...]] = []
    for r in results:
        cell, run = r.cell, r.trajectory
        place = (cell.key, cell.task.name, cell.defense.label, cell.attack.label, cell.mask, cell.ratio, r.samples)
        for split, values in (("val", run.val), ("test", run.test)):
            points = zip(run.step, run.samples, run.flops, run.seconds, values, strict=True)
            rows += [(*place, cell.seed, *costs, split, value) for *costs, value in points]
    table = pd.DataFrame(rows, columns=list(columns)).astype({"samples_n": "Int64"}).round(DECIMALS)
    return table.sort_values([*names[1:], "key", "split", "step"], ignore_index=True)


def failures_table(results: Iterable[Result]) -> pd.DataFrame:
    """Return one row per cell that failed, with the first line of its reason; what is inapplicable did not fail."""
    columns = ["task", "defense", "attack", "mask", "ratio", "seed", "status", "error"]
    table = results_table(r for r in results if r.status not in SETTLED)
    return table[columns]


def coverage_table(results: Iterable[Result]) -> pd.DataFrame:
    """Return per task, defense, mask and attack how many cells ran, failed, and do not apply, with the first reason."""
    place = list(COVERAGE[:4])
    cells = results_table(results)
    na = cells["status"] == "inapplicable"
    counted = cells[place].assign(
        runs=~na, failed=~na & (cells["status"] != "ok"), not_applicable=na, reason=cells["error"].where(na, "")
    )
    return counted.groupby(place, as_index=False, sort=True).agg(
        {"runs": "sum", "failed": "sum", "not_applicable": "sum", "reason": "max"}
    )[list(COVERAGE)]


def learning_curves(results: Iterable[Result], suite: Suite, selection: str = "val") -> pd.DataFrame:
    """Return test accuracies per task, defense, mask, sample ratio and seed, NaN where nothing can be chosen.

    `worst` is under the attacker's choice and `scratch` under scratch's own; `paper` is where the paper's attack ends
    under the paper's mask, and `scratch_matched` where it ends from scratch.
    """
    rule = checked(selection)
    names = ("worst", "paper", "scratch", "scratch_matched")
    columns = ("task", "defense", "mask", "ratio", "samples", "seed", *names)
    rows: list[tuple[Any, ...]] = []
    for curves in collect(results, suite):
        scratch = reference(curves, rule)
        for i, row in enumerate(curves.rows):
            setting = suite.paper_setting(row.defense)
            paper = curves.under(curves.find(row.defense, setting.mask), setting.attack)
            matched = curves.under(curves.scratch(), setting.attack)
            arrays = (curves.worst(i, rule)[1], paper, scratch, matched)
            place = (curves.task, row.defense, row.mask)
            rows += [(*place, *point, *(a[n, s] for a in arrays)) for n, s, *point in _points(curves)]
    return pd.DataFrame(rows, columns=list(columns))


def heatmap_table(results: Iterable[Result], suite: Suite, selection: str = "val") -> pd.DataFrame:
    """Return SLC-AUC against tuned scratch, mean over seeds, per task, defense, mask and single attack.

    It is NaN where the attack lacks a seed or a sample ratio, or cannot face the row.
    """
    rule = checked(selection)
    rows: list[tuple[Any, ...]] = []
    for curves in collect(results, suite):
        scratch = reference(curves, rule)
        for i, row in enumerate(curves.rows):
            eligible = curves.eligible(i)
            for a, attack in enumerate(curves.attacks):
                whole = bool(eligible[a].all())
                area = float(seed_areas(curves, curves.outcomes[rule][i, a], scratch).mean()) if whole else float("nan")
                rows.append((curves.task, row.defense, row.mask, attack, area))
    return pd.DataFrame(rows, columns=["task", "defense", "mask", "attack", "slc"])


def _points(curves: Curves) -> list[tuple[Any, ...]]:
    grid = [(n, ratio, curves.samples[n]) for n, ratio in enumerate(curves.ratios)]
    return [(n, s, ratio, count, seed) for n, ratio, count in grid for s, seed in enumerate(curves.seeds)]


def _cell(result: Result) -> dict[str, Any]:
    cell, run, done = result.cell, result.trajectory, result.protection or Protection()
    scored = bool(run.step)
    good = scored and result.status == "ok"
    return {
        "protocol": cell.protocol,
        "task": cell.task.name,
        "arch": cell.arch.name,
        "defense": cell.defense.label,
        "attack": cell.attack.label,
        "mask": cell.mask,
        "ratio": cell.ratio,
        "samples": result.samples,
        "seed": cell.seed,
        "status": result.status,
        "error": result.error.strip().partition("\n")[0],
        "choice": result.choice,
        "test_accuracy": run.test[-1] if good else None,
        "val_accuracy": run.val[-1] if good else None,
        **_last(run),
        **{name: getattr(done, name) for name in ("source_before", "source_after", "zero_shot", "sparsity")},
        **{name: getattr(done, name) for name in ("pretrain_flops", "protect_flops")},
        "data": digest(result.provenance.data) if result.provenance else "",
        "version": result.provenance.versions.get("ntbench", "") if result.provenance else "",
        "key": cell.key,
        "cell_seconds": result.seconds,
        "pretrain_seconds": done.pretrain_seconds,
        "protect_seconds": done.protect_seconds,
        "peak_mb": result.peak_mb,
    }


def _last(run: Trajectory) -> dict[str, Any]:
    columns = {"steps": run.step, "train_samples": run.samples, "flops": run.flops, "seconds": run.seconds}
    return {name: column[-1] if column else None for name, column in columns.items()}
