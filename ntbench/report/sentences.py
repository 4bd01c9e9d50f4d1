"""What a board says in words: which defense leaks least and how sure that is, its gates, and what brackets are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pandas as pd

from ntbench.measure.agreement import agreement, at_equal_samples
from ntbench.measure.gates import UNREFERENCED
from ntbench.measure.intervals import ATTACKS_ALONE, RANGE
from ntbench.report.display import (
    MISSING,
    Record,
    bounded,
    count,
    line,
    listed,
    number,
    points,
    records,
    row_name,
    text,
    with_interval,
    yes,
)
from ntbench.types import Task, domain_label

GATES = {
    "converged": "gate_converged",
    "horizon": "gate_horizon",
    "transfers": "gate_transfers",
    "inside": "gate_inside",
    "complete": "gate_complete",
}
_GATE = re.compile(rf"; (?=(?:{'|'.join(GATES)}): )")


def ranking(board: pd.DataFrame, task: Task, track: str = "target") -> list[Record]:
    """Return the rows of one task and track in the board's order, the least leak first; baselines come last."""
    rows = records(board[(board["task"] == task.name) & (board["track"] == track)])
    return sorted(rows, key=lambda row: yes(row, "baseline"))


def sentence(board: pd.DataFrame, task: Task) -> str:
    """Return what leaks least on a task, how much, and how sure that is."""
    return f"{task.title}: {_said([row for row in ranking(board, task) if not yes(row, 'baseline')])}"


def gate_line(rows: Sequence[Record], where: str = "") -> str:
    """Return which gates a board passes, and of the others the rows, the reason and the remedy; `where` names it."""
    gates = f"Gates {where}".rstrip()
    judged = [row for row in rows if not yes(row, "baseline")]
    if not judged:
        return f"{gates}: no row to judge."
    passed = [name for name, field in GATES.items() if all(yes(row, field) for row in judged)]
    if len(passed) == len(GATES):
        return f"{gates}: all pass ({listed(GATES)})."
    missed = "; ".join(_missed(judged))
    return f"{gates}: {listed(passed) or 'none'} {'passes' if len(passed) == 1 else 'pass'}. Not passed: {missed}."


def brackets(rows: Iterable[Record]) -> str:
    """Return what stands in the brackets of these rows: an interval, or the range of a few seeds."""
    judged = [row for row in rows if not yes(row, "baseline") and row.get("seeds")]
    kinds = {(str(row.get("interval")).removesuffix(ATTACKS_ALONE), row["seeds"]) for row in judged}
    ranges = sorted(f"{number(seeds, 0)}" for kind, seeds in kinds if kind == RANGE)
    whole = sorted({kind for kind, _ in kinds if kind not in (RANGE, "")})
    said = [f"{' and '.join(whole)} intervals"] if whole else []
    said += [f"{_range(' or '.join(ranges))}, no interval"] if ranges else []
    alone = [row_name(row) for row in judged if str(row.get("interval")).endswith(ATTACKS_ALONE)]
    files = f"; of {listed(alone)}{ATTACKS_ALONE}, on one file each" if alone else ""
    return f"Brackets: {'; of rows with fewer, '.join(said)}{files}." if said else ""


def tuned(rows: Iterable[Record]) -> str:
    """Return which defenses were tuned for the task and in how many trials, and which not; nothing where none was."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        trials = count(row.get("trials"))
        if trials != MISSING or not (yes(row, "control") or yes(row, "baseline")):
            groups.setdefault(trials, []).append(text(row, "defense"))
    untuned = groups.pop(MISSING, [])
    said = [f"{listed(dict.fromkeys(names))} in {trials} trials" for trials, names in groups.items()]
    others = [f"{listed(dict.fromkeys(untuned))} not"] if untuned else []
    return f"Tuned for the task: {'; '.join([*said, *others])}." if said else ""


def _said(rows: Sequence[Record]) -> str:
    if not rows:
        return "nothing to compare yet, only baselines have run."
    if all(pd.isna(row["uplift"]) for row in rows):
        return "no number yet, too few cells have run."
    if any(UNREFERENCED in text(row, "gates") for row in rows):
        return f"{'; '.join(_adds(row) for row in rows if yes(row, 'ranked'))}. N{UNREFERENCED[1:]}."
    if not any(yes(row, "gate_transfers") for row in rows):
        return "nothing to protect: the unprotected release adds nothing that these runs can tell from 0. No verdict."
    own = [row for row in rows if not yes(row, "control") and yes(row, "ranked")]
    judged = [row for row in own if not pd.isna(row["leak"]) and text(row, "verdict") in ("holds", "leaks", "open")]
    if judged:
        return _judged(judged, rows)
    measured = [row for row in own if not pd.isna(row["leak"])]
    if measured:
        least = measured[0]
        why = "; ".join(f"{gate}: {reason}" for gate, reason in failures(least)[:1]) or text(least, "reason")
        return f"{_least(least)}, but there is no verdict. {why[:1].upper()}{why[1:]}."
    return "no defense has a leak yet." if own else "only controls have run."


def _judged(judged: Sequence[Record], rows: Sequence[Record]) -> str:
    least, others = judged[0], judged[1:]
    holding = [row_name(row) for row in others if row["verdict"] == "holds"]
    close = [
        row for row in others if row["verdict"] != "holds" and not pd.isna(row["rank_low"]) and row["rank_low"] <= 1
    ]
    lower = [r for r in rows if yes(r, "control") and yes(r, "ranked") and r["leak"] < least["leak"]]
    said = [f"{_least(least)}: {_verdict(least)}."]
    said += [f"{listed(holding, 3)} {'holds' if len(holding) == 1 else 'hold'} as well."] if holding else []
    said += [f"{listed(map(row_name, close), 3)} may leak as little."] if close else []
    said += [f"The control {row_name(lower[0])} leaks less, {number(lower[0]['leak'])}."] if lower else []
    return " ".join(said)


def _least(row: Record) -> str:
    leak = with_interval(row, "leak", signed=False)
    return f"{row_name(row)} leaks least, {leak} of what the unprotected release adds ({_sure(row)})"


def _adds(row: Record) -> str:
    added, pace = with_interval(row, "uplift", points), bounded(row, "speedup")
    return (
        f"{row_name(row)} adds {added} points for an attacker over starting without it ({_sure(row)}), speed-up {pace}"
    )


def _sure(row: Record) -> str:
    kind = text(row, "interval")
    level, alone = kind.removesuffix(ATTACKS_ALONE), ATTACKS_ALONE if kind.endswith(ATTACKS_ALONE) else ""
    return (_range(number(row.get("seeds"), 0)) if level == RANGE else f"{level} interval") + alone


def _range(seeds: str) -> str:
    return f"range of {seeds} {'seed' if seeds == '1' else 'seeds'}"


def _verdict(row: Record) -> str:
    if row["verdict"] == "open":
        return f"open, {text(row, 'reason').rstrip('.')}"
    return {"holds": "it holds", "leaks": "it leaks all the same"}[row["verdict"]]


def _missed(judged: Sequence[Record]) -> list[str]:
    where: dict[str, dict[str, list[str]]] = {}
    for row in judged:
        for gate, reason in failures(row):
            where.setdefault(gate, {}).setdefault(reason, []).append(row_name(row))
    return [_gate(gate, reasons, len(judged)) for gate, reasons in where.items()]


def failures(row: Record) -> list[tuple[str, str]]:
    """Return the gates that a row does not pass, each with its reason and remedy."""
    said = text(row, "gates")
    found = [(part.partition(": ")[0], part.partition(": ")[2]) for part in _GATE.split(said) if ": " in part]
    told = {gate for gate, _ in found}
    silent = [name for name, field in GATES.items() if name not in told and not yes(row, field)]
    return found + [(name, "no reason given") for name in silent]


def _gate(gate: str, reasons: dict[str, list[str]], count: int) -> str:
    # One reason a gate: the table of verdicts has the others.
    reason, rows = max(reasons.items(), key=lambda item: len(item[1]))
    where = "every row" if len(rows) == count else listed(rows, 3)
    more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    return f"{gate}: {reason} ({where}){more}"


def defended(task: Task) -> str:
    """Return the domains that a task's defender is given where they are told apart from the target, "" elsewhere."""
    return "" if task.defended is None else listed(map(domain_label, task.defended)) or "no domain"


def absent(coverage: pd.DataFrame, task: Task) -> str:
    """Return which defenses have no row of a task, since no attack could face them, and why; "" where all have one."""
    part = coverage[coverage["task"] == task.name]
    faced = part.groupby("defense", sort=False).agg({"runs": "sum", "reason": "max"})
    return "; ".join(f"{name} has no row: {line(why)}" for name, runs, why in faced.itertuples() if not runs)


def correlation(points: pd.DataFrame) -> str:
    """Return Spearman's rank correlation in words; below 0 higher scores have smaller distances."""
    told = "{} [{}, {}]".format(*map(number, agreement(points)))
    return f"Spearman {told}, {len(points)} points"


def correlations(points: pd.DataFrame) -> str:
    """Return Spearman's rank correlation at every sample count in words, "" where no count has points enough."""
    return "; ".join(f"with {count(n)} samples {correlation(part)}" for n, part in at_equal_samples(points))
