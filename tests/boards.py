"""Tables that nobody measured: a leaderboard of many defenses, tasks and tracks, and the tables that go with it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from ntbench.measure.agreement import COLUMNS as AGREEMENT
from ntbench.measure.reproduced import Reproduction
from ntbench.report.tables import Tables
from ntbench.suite import Suite
from ntbench.types import Arch, Level, Task, Training

METHODS: tuple[str, ...] = (
    *("sophon-ice", "sophon-kld", "ntp-fisher", "ntp-mmd", "ntl", "cuti", "cupi", "h-ntl", "sdpl", "immunize", "tar"),
    *("mlac", "repnoise", "map", "archlock", "ntp_ssl", "a-defense-with-a-long-name-and-loops-3-inner-2"),
)
HOSTILE = "<script>alert(1)</script>&_$\\frac{$[red]"
NAMES = (HOSTILE, "ntp", "sophon-with-a-long-name-and-loops-3")
CONTROLS = ("none", "scratch", "magnitude")
TRACKS = ("target", "source", "unlabelled", "queries")
COUNTS = (12, 60, 360, 1200)
PARTS, OPTIMIZERS = ("", "-head", "-fresh", "-all"), ("sgd", "momentum", "adam")
ATTACKS = tuple(f"{name}-{rate}{part}" for part, name, rate in product(PARTS, OPTIMIZERS, range(5)))
GATES = ("converged", "horizon", "transfers", "inside", "complete")
FACTORS: dict[str, tuple[str, ...]] = {
    "optimizer": ("sgd", "momentum", "adam", "adamw", "rmsprop", "adagrad", "lamb"),
    "rate": ("0.0001", "0.0003", "0.001", "0.003", "0.01", "0.03"),
    "schedule": ("constant", "cooldown", "cosine"),
    "batch size": ("8", "32", "128"),
    "method": ("finetune", "new-head", "linear-probe", "gradual", "reinitialize", "sam", "lora"),
}


def tasks(count: int = 3) -> list[Task]:
    pairs = [("photo", "sketch"), ("digits", "digits_m"), ("cartoon", "sketch")]
    levels = tuple(Level(samples=n, t90=40, plateau=0.9) for n in COUNTS)
    return [Task(source=s, target=t, levels=levels) for s, t in pairs[:count]]


def suite(names: Sequence[str] = METHODS, count: int = 3) -> Suite:
    rows = [{"name": "ntp", "label": name.replace("{", "{{").replace("}", "}}")} for name in (*CONTROLS, *names)]
    values: dict[str, Any] = {"arch": Arch(name="cnn"), "pretrain": Training(), "tasks": tasks(count)}
    values |= {"paper": {"attack": ATTACKS[0]}, "seeds": (0, 1, 2, 3, 4), "defenses": rows}
    values |= {"attacks": [{"name": "finetune", "label": name} for name in ATTACKS]}
    return Suite(name="tiny", version=2, summary="what nobody measured", **values)


def board(names: Sequence[str] = METHODS, count: int = 3, seeds: int = 5) -> pd.DataFrame:
    """Return a leaderboard in which the first defense leaks least; the third is also attacked with its mask kept."""
    kept = names[2] if len(names) > 2 else ""
    rows = [
        row(task.name, track, name, mask, i / max(len(names), 1), seeds)
        for task in tasks(count)
        for track in TRACKS
        for i, name in enumerate((*names, *CONTROLS))
        for mask in (("dense", "keep") if name == kept and track == "target" else ("dense",))
    ]
    table = pd.DataFrame(rows)
    for task in tasks(count):
        place = table["ranked"] & (table["task"] == task.name)
        table.loc[place, "rank"] = table.loc[place, "leak"].rank().astype(int)
    table["rank_low"], table["rank_high"] = (table["rank"] - 1).clip(1), table["rank"] + 1
    order = table.assign(place=table["track"].map({t: i for i, t in enumerate(TRACKS)}))
    order = order.sort_values(["task", "place", "leak"], kind="stable").drop(columns="place").reset_index(drop=True)
    return order.astype(dict.fromkeys(("rank", "rank_low", "rank_high"), "Int64"))


def row(task: str, track: str, name: str, mask: str, level: float, seeds: int = 5) -> dict[str, Any]:
    """Return one line of a leaderboard, whose leak is about `level`."""
    random = np.random.default_rng([*task.encode(), *track.encode(), *name.encode(), len(mask)])
    leak = {"none": 1.0, "scratch": 0.0}.get(name, level + random.normal(0, 0.02))
    width = 0.0 if name in ("none", "scratch") else 0.04 + 0.1 * level
    baseline, interval = name == "scratch", "95%" if seeds >= 5 else "range"
    gates = "" if level < 0.8 else "inside: adam-4 is the largest rate of its family; add a larger one"
    verdict = "holds" if leak + width <= 0.1 else "leaks" if leak - width > 0.1 else "open"
    verdict = "open" if seeds < 5 else verdict
    values: dict[str, Any] = {"task": task, "track": track, "defense": name, "mask": mask}
    values |= {"needs": "source labels, target labels", "control": name in CONTROLS, "baseline": baseline}
    values |= {"ranked": track == "target" and mask == "dense" and not baseline, "rank": pd.NA}
    values["verdict"] = "" if baseline or track == "unlabelled" else "none" if gates else verdict
    values["reason"] = "its interval spans 0.1; about 8 seeds would decide" if values["verdict"] == "open" else gates
    values |= _spread("leak", leak, width) | _spread("uplift", 0.2 * leak, 0.2 * width)
    values |= _spread("slc", leak - 0.3, 0.05) | _spread("compute_uplift", 0.3 * leak, 0.02)
    values |= {"scratch_uplift": 0.25 * leak, "oracle_leak": leak + 0.02, "oracle_uplift": 0.2 * leak + 0.004}
    values |= {"own_leak": np.nan, "own_uplift": np.nan, "speedup_bound": "<" if level < 0.2 and not baseline else ""}
    values |= _spread("speedup", 1.0 if baseline else 0.8 + level, 0.1) | {
        "overhead": 1.8 - level,
        "overhead_bound": ">" if level < 0.2 else "",
    }
    costs = product(("steps", "samples", "flops", "seconds"), (50, 80, 90, 95))
    values |= {f"speedup_{cost}_{q}": 0.8 + level + q / 1000 for cost, q in costs}
    if track == "unlabelled":
        values |= _spread("speedup", np.nan, 0.0)
    values |= _spread("drop", 0.0 if baseline else 0.004 + 0.02 * level, 0.004)
    values |= {"source_before": 0.98, "source_after": 0.97, "zero_shot": 0.12, "sparsity": 0.5 * (mask == "keep")}
    values |= {"attack": ATTACKS[len(name)], "attacks": "; ".join(ATTACKS[:4]), "takes_baseline": 0.4}
    values |= {
        "interval": interval,
        "seeds": seeds,
        "cells": 1200,
        "failed": 2,
        "faced": len(ATTACKS),
        "inapplicable": 1,
    }
    values |= {f"gate_{gate}": not (gates and gate == "inside") for gate in GATES} | {"gates": gates}
    values |= {"paper_attack": ATTACKS[0], "paper_mask": mask, "paper_overhead": 1.7} | _spread(
        "paper_slc", leak - 1.2, 0.1
    )
    values |= {"search_uplift": 0.2 * leak, "grid_uplift": 0.21 * leak, "search_steps": 25600, "grid_steps": 614400}
    values |= {"trials": np.nan, "tuning_steps": np.nan, "tuning_flops": np.nan}
    values |= {"protect_steps": 4000, "protect_seconds": 61.5, "protect_flops": 3.2e13, "protect_seconds_ratio": 6.1}
    return values | {"note": ""}


def _spread(name: str, mean: float, width: float) -> dict[str, float]:
    return {name: mean, f"{name}_low": mean - width, f"{name}_high": mean + width}


def places(table: pd.DataFrame, track: str = "target") -> list[tuple[str, str, str, float]]:
    part = table[table["track"] == track]
    return list(part[["task", "defense", "mask", "leak"]].itertuples(index=False, name=None))


def curves(table: pd.DataFrame) -> pd.DataFrame:
    """Return learning curves to a leaderboard: per row, sample count and seed the four scores."""
    rows = []
    for (task, name, mask, leak), n, seed in product(places(table), COUNTS, range(5)):
        scratch = 0.2 + 0.1 * np.log(n / 12) + 0.01 * (seed - 2)
        release = scratch + 0.25 * leak - 0.1 + 0.01 * (seed % 2)
        rows.append((task, "target", name, mask, n, seed, max(release, scratch), release, scratch, scratch - 0.1))
    names = ["task", "track", "defense", "mask", "samples", "seed", "rational", "worst", "baseline", "paper"]
    return pd.DataFrame(rows, columns=names)


def budgets(table: pd.DataFrame) -> pd.DataFrame:
    """Return uplift over compute to a leaderboard: per row and budget in units of T90."""
    rows = []
    for (task, name, mask, leak), k in product(places(table), range(7)):
        value = 0.3 * leak * (1 - (k / 7 - 0.3) ** 2)
        rows.append((task, "target", name, mask, 2.0 ** (k - 3), value, value - 0.02, value + 0.02))
    names = ["task", "track", "defense", "mask", "budget", "uplift", "uplift_low", "uplift_high"]
    return pd.DataFrame(rows, columns=names)


def factors(table: pd.DataFrame) -> pd.DataFrame:
    """Return best accuracy and leak by factor to a leaderboard."""
    pairs = [(factor, value) for factor, values in FACTORS.items() for value in values]
    rows = [
        (task, "target", name, mask, factor, value, 0.5 + 0.3 * leak, leak * (0.3 + 0.7 * (len(value) % 4) / 3))
        for (task, name, mask, leak), (factor, value) in product(places(table), pairs)
    ]
    return pd.DataFrame(rows, columns=["task", "track", "defense", "mask", "factor", "value", "accuracy", "leak"])


def maps(table: pd.DataFrame) -> pd.DataFrame:
    """Return the map of sources and targets to a leaderboard."""
    part = table[table["track"] == "target"]
    pairs = {task.name: (task.source, task.target) for task in tasks()}
    ends = pd.DataFrame([pairs[name] for name in part["task"]], columns=["source", "target"], index=part.index)
    return pd.concat([ends, part[["task", "track", "defense", "mask", "slc", "leak"]]], axis=1).reset_index(drop=True)


def coverage(table: pd.DataFrame) -> pd.DataFrame:
    """Return which attacks each row faced: the last does not apply to masks that are kept."""
    rows = [
        (task, "target", name, mask, attack, *((0, 0, 20, "it moves zeros") if off else (20, 2 * (i == 1), 0, "")))
        for (task, name, mask, _), (i, attack) in product(places(table), enumerate(ATTACKS))
        for off in [mask == "keep" and i == len(ATTACKS) - 1]
    ]
    names = ["task", "track", "defense", "mask", "attack", "runs", "failed", "not_applicable", "reason"]
    return pd.DataFrame(rows, columns=names)


def attacks(table: pd.DataFrame, count: int = len(ATTACKS)) -> pd.DataFrame:
    """Return SLC-AUC of every single attack to a leaderboard."""
    rows = [
        (task, "target", name, mask, attack, mask, leak - 0.3 - 0.02 * i, 0.5)
        for (task, name, mask, leak), (i, attack) in product(places(table), enumerate(ATTACKS[:count]))
    ]
    names = ["task", "track", "defense", "mask", "attack", "attack_mask", "slc", "accuracy"]
    return pd.DataFrame(rows, columns=names)


def together(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table over all tasks to a leaderboard."""
    part = table[table["track"] == "target"].groupby(["track", "defense", "mask"], sort=False)
    ends = [f"{name}{end}" for name in ("leak", "uplift") for end in ("", "_low", "_high")]
    found = part.agg(dict.fromkeys(ends, "mean") | {"interval": "first", "seeds": "min"})
    return found.assign(tasks=table["task"].nunique(), **_spread("iqm", 0.1, 0.02)).reset_index()


def agreeing(count: int = 12) -> pd.DataFrame:
    """Return how two scores agree on the first task: the higher the score, the less the distance, but for noise."""
    draw = np.random.default_rng(0)
    score = np.linspace(0.2, 0.8, count)
    far = np.exp(4 - 3 * score + 0.3 * draw.standard_normal(count))
    places = [(tasks(1)[0].name, "target", "ab"[k % 2], "x", "dense", 10 * (1 + k % 4 // 2), 5) for k in range(count)]
    rows = [(*place, *values) for place, *values in zip(places, score, far, strict=True)]
    return pd.DataFrame(rows, columns=list(AGREEMENT))


def tables(names: Sequence[str] = NAMES, count: int = 3, seeds: int = 5) -> Tables:
    """Return everything that a report is made of."""
    whole = board(names, count, seeds)
    failed = [(whole["task"][0], "ntp", "sgd-1", "dense", 12, 0, "diverged", "loss <i>is</i> nan_")]
    columns = ["task", "defense", "attack", "mask", "samples", "seed", "status", "error"]
    return Tables(
        leaderboard=whole,
        results=pd.DataFrame({"task": []}),
        trajectories=pd.DataFrame({"task": []}),
        failures=pd.DataFrame(failed, columns=columns),
        coverage=coverage(whole),
        curves=curves(whole),
        budgets=budgets(whole),
        attacks=attacks(whole, 6),
        factors=factors(whole),
        tasks=together(whole),
        profiles=pd.DataFrame({"track": []}),
        map=maps(whole),
        detectable=0.07,
        protocols=Reproduction(suite(names, count), (), ()),
    )
