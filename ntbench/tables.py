"""Results as pandas tables: cells, trajectories, failures, learning curves, the heat map and the leaderboard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from ntbench.curves import Curves, checked, collect
from ntbench.ranking import leaderboard_table, reference, seed_areas
from ntbench.suite import Suite
from ntbench.types import Protection, Result, Trajectory, digest

__all__ = [
    "TIMING",
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
    *("status", "error", "test_accuracy", "val_accuracy", "steps", "train_samples", "flops"),
    *("source_before", "source_after", "zero_shot", "sparsity", "pretrain_flops", "protect_flops"),
    *("data", "version", "key"),
    *TIMING,
)
DECIMALS = 6


def results_table(results: Iterable[Result]) -> pd.DataFrame:
    """Return one row per cell, in the order of the recipes, the same for any order of the results.

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
    """Return one row per cell that did not go well, with the first line of its reason."""
    columns = ["task", "defense", "attack", "mask", "ratio", "seed", "status", "error"]
    table = results_table(r for r in results if r.status != "ok")
    return table[columns]


def learning_curves(results: Iterable[Result], suite: Suite, selection: str = "val") -> pd.DataFrame:
    """Return test accuracies per task, defense, mask, sample ratio and seed, NaN where nothing can be chosen.

    `worst` is under the attacker's choice, `paper` under the paper's attack and mask, `scratch` under scratch's own
    choice and `scratch_matched` under the paper's attack.
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

    It is NaN where the attack lacks a seed or a sample ratio.
    """
    rule = checked(selection)
    rows: list[tuple[Any, ...]] = []
    for curves in collect(results, suite):
        scratch = reference(curves, rule)
        for i, row in enumerate(curves.rows):
            eligible = curves.eligible(i)
            for a, attack in enumerate(curves.attacks):
                whole = bool(eligible[a].all())
                area = float(seed_areas(curves, curves.test[i, a], scratch).mean()) if whole else float("nan")
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
