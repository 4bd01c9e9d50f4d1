"""The leaderboard: what each defense costs its strongest attacker, beside what its paper's attack suggests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ntbench.measure.costs import QUANTILES, paper_overhead, worst_overheads
from ntbench.measure.curves import COSTS, Curves, Selection, checked, collect
from ntbench.measure.metrics import (
    TOLERANCE,
    Array,
    bootstrap_interval,
    intactness,
    log_range,
    normalised,
    protection_cost,
    resamples,
    slc_auc,
)
from ntbench.suite import Suite
from ntbench.types import CONTROLS, Result

MAX_DROP = 0.02
MIN_ELIGIBLE = 2 / 3
OVERHEADS = tuple(f"overhead_{cost}_{q}" for cost in COSTS for q in QUANTILES)
COLUMNS = (
    *("rank", "rank_low", "rank_high", "task", "defense", "mask", "needs", "selection"),
    *("ranked", "control", "holds", "thin", "seeds", "cells", "failed"),
    *("paper_attack", "paper_mask", "paper_slc", "paper_slc_low", "paper_slc_high"),
    *("paper_overhead", "paper_overhead_censored"),
    *("grid_attack", "grid_slc", "grid_slc_low", "grid_slc_high", "grid_steps"),
    *("auto_choice", "auto_slc", "auto_slc_low", "auto_slc_high", "auto_steps"),
    *("auto_gap", "auto_gap_low", "auto_gap_high"),
    *("worst_attack", "worst_attacks", "worst_steps", "slc", "slc_low", "slc_high", "slc_norm"),
    *(f"{name}{suffix}" for name in OVERHEADS for suffix in ("", "_censored", "_restricted")),
    *("source_before", "source_after", "drop", "drop_low", "drop_high", "zero_shot", "sparsity"),
    *("protect_seconds_ratio", "protect_flops_ratio", "note"),
)
Record = dict[str, Any]


def leaderboard_table(results: Iterable[Result], suite: Suite, selection: str = "val") -> pd.DataFrame:
    """Return one row per task, defense and mask, the strongest defense of each task first.

    `selection` is "val" (the attacker chooses attacks and steps on its own validation data), "last" (attacks alone,
    each where it ends) or "oracle" (both on test data). SLC-AUC is paired by seed. Overheads stand at the largest
    sample ratio alone, since a few samples are learnt in a step or never; where `_censored`, the share of seeds that
    never got there, is one half or more, the value is a lower bound. Inapplicable cells do not count, and a row of
    nothing else does not appear. Raises UserError for an unknown rule and for mixed results.
    """
    rule = checked(selection)
    records = [record for curves in collect(results, suite) for record in _task_records(curves, suite, rule)]
    table = pd.DataFrame(records, columns=list(COLUMNS))
    return table.astype(dict.fromkeys(("rank", "rank_low", "rank_high"), "Int64"))


def seed_areas(curves: Curves, defense: Array, scratch: Array) -> Array:
    """Return SLC-AUC per seed from accuracies [ratios, seeds] over the ratios that both have, NaN for fewer than 2."""
    both = present(defense, scratch)
    if both.sum() < 2:
        return np.full(len(curves.seeds), np.nan)
    pairs = zip(defense[both].T, scratch[both].T, strict=True)
    return np.array([slc_auc(curves.samples[both], ours, theirs) for ours, theirs in pairs])


def present(defense: Array, scratch: Array) -> NDArray[np.bool_]:
    """Return the ratios at which both curves [ratios, seeds] have every seed."""
    return np.asarray(np.isfinite(defense + scratch).all(axis=1))


def reference(curves: Curves, rule: Selection, among: NDArray[np.bool_] | None = None) -> Array:
    """Return the accuracies [ratios, seeds] of scratch tuned among attacks, all NaN where it has not run."""
    scratch = curves.scratch()
    return curves.nothing() if scratch is None else curves.worst(scratch, rule, among)[1]


def _task_records(curves: Curves, suite: Suite, rule: Selection) -> list[Record]:
    scratch = reference(curves, rule)
    worst = [curves.worst(i, rule) for i in range(len(curves.rows))]
    areas = np.array([seed_areas(curves, curve, scratch) for _, curve in worst])
    both = [present(curve, scratch) for _, curve in worst]
    ranks = _ranks(curves, areas, [bool(b.all()) for b in both])
    records: list[Record] = []
    for i, (chosen, _) in enumerate(worst):
        record = ranks[i] | _counts(curves, i) | _paper(curves, i, suite) | _searches(curves, i, rule)
        record |= {"selection": rule, "worst_attack": _commonest(chosen)}
        record |= {"worst_attacks": "; ".join(chosen), "worst_steps": curves.spent(i, chosen)}
        record |= _interval("slc", areas[i]) | _overheads(curves, i, rule) | _protection(curves, i)
        record["slc_norm"] = normalised(record["slc"], curves.samples[both[i]]) if both[i].sum() > 1 else np.nan
        works = record["slc_high"] < 0 and record["overhead_steps_90"] >= 1 and record["drop"] <= MAX_DROP
        record["holds"] = bool(works and both[i].all())
        record["note"] = "; ".join(_notes(curves, i, both[i], record["ranked"]))
        records.append(record)
    place = {r["defense"]: r["rank"] for r in records if r["ranked"]}
    return sorted(records, key=lambda r: (place.get(r["defense"], np.inf), not r["ranked"]))


def _interval(name: str, values: Array) -> Record:
    finite = values[np.isfinite(values)]
    low, high = bootstrap_interval(finite)
    return {name: _mean(finite), f"{name}_low": low, f"{name}_high": high}


def _mean(values: Array) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else np.nan


def _ranks(curves: Curves, areas: Array, complete: Sequence[bool]) -> list[Record]:
    """Return each row's rank and its range; a defense stands at its weaker row, as nobody makes an attacker keep zeros.

    `areas` is SLC-AUC [rows, seeds]. A defense with a row that is not complete, or without a dense row, has no rank.
    """
    groups: dict[str, list[int]] = {}
    for i, row in enumerate(curves.rows):
        groups.setdefault(row.defense, []).append(i)
    able = [rows for rows in groups.values() if _rankable(curves, rows, complete)]
    records: list[Record] = [dict(rank=None, rank_low=None, rank_high=None, ranked=False) for _ in areas]
    if not able:
        return records
    point = _order(np.array([areas[rows].mean(axis=1).max() for rows in able]))
    draws = areas[:, resamples(len(curves.seeds))].mean(axis=2)
    spread = _order(np.array([draws[rows].max(axis=0) for rows in able]))
    low = np.quantile(spread, 0.025, axis=1, method="lower")
    high = np.quantile(spread, 0.975, axis=1, method="higher")
    for k, rows in enumerate(able):
        record = records[max(rows, key=lambda i: areas[i].mean())]
        record |= {"rank": int(point[k]), "ranked": True}
        if len(curves.seeds) > 1:
            record |= {"rank_low": int(low[k]), "rank_high": int(high[k])}
    return records


def _rankable(curves: Curves, rows: Sequence[int], complete: Sequence[bool]) -> bool:
    dense = any(curves.rows[i].mask == "dense" for i in rows)
    return dense and curves.rows[rows[0]].name != "scratch" and all(complete[i] for i in rows)


def _order(values: Array) -> Array:
    # Ranks along the first axis, lowest first; equals share the better rank.
    return np.asarray(1 + (values[None] < values[:, None] - TOLERANCE).sum(axis=1), dtype=np.float64)


def _counts(curves: Curves, i: int) -> Record:
    row = curves.rows[i]
    return {
        "task": curves.task,
        "defense": row.defense,
        "mask": row.mask,
        "needs": curves.needs[i],
        "control": row.name in CONTROLS,
        "thin": bool(curves.eligible(i)[curves.applicable[i]].mean(axis=0).min() < MIN_ELIGIBLE),
        "seeds": len(curves.seeds),
        "cells": curves.cells[i],
        "failed": curves.failed[i],
    }


def _searches(curves: Curves, i: int, rule: Selection) -> Record:
    """Return what the grid of attacks alone and the automatic one alone reach, and at what cost.

    Scratch searches as the attacker does: among the same attacks.
    """
    searches = {"grid": ~curves.auto, "auto": curves.auto}
    # What stands before a colon is the kind of attack; the rest are its hyper-parameters.
    record: Record = {"auto_choice": _commonest(choice.partition(":")[0] for choice in curves.choices[i])}
    worst = {name: curves.worst(i, rule, among) for name, among in searches.items()}
    record["grid_attack"] = _commonest(worst["grid"][0])
    for name, among in searches.items():
        areas = seed_areas(curves, worst[name][1], reference(curves, rule, among))
        record |= _interval(f"{name}_slc", areas) | {f"{name}_steps": curves.searched(i, among)}
    found, best = worst["auto"][1], worst["grid"][1]
    both = present(found, best)
    gaps = seed_areas(curves, found, best) / (log_range(curves.samples[both]) if both.sum() > 1 else 1.0)
    return record | _interval("auto_gap", gaps)


def _commonest(names: Iterable[str]) -> str:
    most = Counter(name for name in names if name != "-").most_common(1)
    return most[0][0] if most else ""


def _notes(curves: Curves, i: int, both: NDArray[np.bool_], ranked: bool) -> list[str]:
    row, scratch = curves.rows[i], curves.scratch()
    planned = int(curves.applicable[i].sum()) * len(curves.ratios) * len(curves.seeds)
    absent = planned - curves.cells[i]
    notes = [f"{absent} of {planned} cells have not run"] if absent else []
    if scratch is None:
        return [*notes, "no scratch curve to compare with: run the control scratch"]
    if both.sum() < 2:
        return [*notes, "fewer than 2 sample ratios where an attack and scratch went well on every seed"]
    if not both.all():
        return [*notes, f"{(~both).sum()} of {both.size} sample ratios missing"]
    if ranked or row.name == "scratch":
        return notes
    other = curves.find(row.defense, "keep" if row.mask == "dense" else "dense")
    if other is None:
        return [*notes, "not ranked: not attacked with the mask dense"]
    return [*notes, f"ranked by its {curves.rows[other].mask} row"]


def _paper(curves: Curves, i: int, suite: Suite) -> Record:
    row, setting = curves.rows[i], suite.paper_setting(curves.rows[i].defense)
    # A kept mask is part of what the paper claims for the defense, whichever row one reads.
    if row.mask != setting.mask and setting.mask != "keep":
        return _interval("paper_slc", np.array([])) | {"paper_attack": "", "paper_mask": ""}
    subject = curves.find(row.defense, setting.mask)
    matched = curves.under(curves.scratch(), setting.attack)
    cost = paper_overhead(curves, subject, setting.attack)
    return _interval("paper_slc", seed_areas(curves, curves.under(subject, setting.attack), matched)) | {
        "paper_attack": setting.attack,
        "paper_mask": setting.mask,
        "paper_overhead": cost.value,
        "paper_overhead_censored": cost.share,
    }


def _overheads(curves: Curves, i: int, rule: Selection) -> Record:
    record = Record()
    for (cost, q), found in worst_overheads(curves, i, rule).items():
        name = f"overhead_{cost}_{q}"
        record |= {name: found.value, f"{name}_censored": found.share, f"{name}_restricted": found.restricted}
    return record


def _protection(curves: Curves, i: int) -> Record:
    of = {name: values[i] for name, values in curves.protection.items()}
    record = {name: _mean(of[name]) for name in ("source_before", "source_after", "zero_shot", "sparsity")}
    for unit in ("seconds", "flops"):
        pair = np.array([of[f"protect_{unit}"], of[f"pretrain_{unit}"]])
        record[f"protect_{unit}_ratio"] = protection_cost(*pair[:, np.isfinite(pair).all(axis=0)])
    # Whoever starts from nothing never had a source task to lose.
    owned = curves.rows[i].name != "scratch"
    lost = intactness(of["source_before"], of["source_after"]) if owned else np.array([])
    return record | _interval("drop", lost)
