"""The tables of one task, in the order in which people need them; every renderer shows these and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ntbench.report import columns as c
from ntbench.report.columns import Column, filled
from ntbench.report.display import MISSING, Record, line, listed, number, percent, records, yes
from ntbench.report.sentences import brackets, failures, gate_line, ranking, tuned
from ntbench.report.words import worded
from ntbench.types import Task, with_mask

TRACKS = {
    "source": (
        "Attackers who also hold source data",
        "They start anew, or from the release, with a share of the source data beside their target samples.",
    ),
    "semi-supervised": (
        "Attackers who also hold unlabelled target images",
        "Beside their samples they hold the images that all samples are drawn from, without labels; their baseline has "
        "the same.",
    ),
    "unlabelled": (
        "Attackers without labels",
        "They hold target images without labels. Their best model on test is shown, an upper bound, so there is "
        "neither speed-up nor verdict.",
    ),
    "queries": (
        "Attackers of a black box",
        "They ask the release for its answers and never see its weights; their baseline has the same data without it.",
    ),
}
FACTORS = {
    "optimizer": "optimizer",
    "rate": "learning rate",
    "schedule": "schedule",
    "batch size": "batch size",
    "method": "fine-tuning method",
}
BOUNDS = "< and > mark bounds: the runs ended before they got there."
FACTOR_NOTE = "One factor of the attack is held, the others are at their best; means over sample counts and seeds."
NUMBERS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "leak": ("Leak", number),
    "accuracy": ("Best accuracy in %", percent),
}
TRACKED = ("target", *TRACKS)
VALUES = 8  # of a factor in one table


@dataclass(frozen=True)
class View:
    """A table to show: `key` names it in files, `note` says below it what a reader needs to know."""

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: Sequence[Record]
    note: str = ""

    @property
    def shown(self) -> tuple[Column, ...]:
        """Return the columns that say something about at least one row."""
        return filled(self.rows, self.columns)

    @property
    def empty(self) -> bool:
        """Return whether nothing is known but names."""
        return all(column.field in ("defense", "verdict") for column in self.shown)

    def worded(self, objective: str) -> View:
        """Return the table in the words of an objective, given by its name."""
        said = tuple(column.worded(objective) for column in self.columns)
        return replace(self, title=worded(self.title, objective), columns=said, note=worded(self.note, objective))


def headline(board: pd.DataFrame, task: Task, axis: str = "samples") -> View:
    """Return the table that comes first: the ranked track, seven columns by the axis that leak rests on."""
    rows = ranking(board, task)
    note = " ".join(filter(None, [brackets(rows), tuned(rows)]))
    return View("leaderboard", task.title, c.HEADLINES[axis], rows, note)


def tracks(board: pd.DataFrame, task: Task) -> list[View]:
    """Return a table for each other track that has rows."""
    found = []
    for track, (title, note) in TRACKS.items():
        rows = ranking(board, task, track)
        gates = "" if track == "unlabelled" else gate_line(rows)
        view = View(track, title, c.BESIDE, rows, " ".join(filter(None, [note, brackets(rows), gates])))
        found += [] if view.empty else [view]
    return found


def claim(board: pd.DataFrame, task: Task) -> list[View]:
    """Return the table of what the one attack that a suite names for papers says, none where no row has one."""
    rows = [row for row in ranking(board, task) if yes(row, "ranked") and not pd.isna(row["paper_slc"])]
    note = (
        "One fixed attack, as a paper would evaluate with, against scratch under that same attack, beside the "
        "strongest attack against the baseline at its best. Below 0: worse for the attacker than scratch. Papers' own "
        "settings are those of `paper_sophon`, `paper_ntp` and `paper_ntl`."
    )
    return [View("claims", "What one fixed attack says", c.CLAIM, rows, note)] if rows else []


def permitted(table: pd.DataFrame, task: Task) -> list[View]:
    """Return the table of leak by the drop that a defense permits, none where no rows differ in it alone."""
    rows = _families(table, task)
    return [View("permitted", "Leak by permitted source drop", c.PERMITTED, rows)] if rows else []


def ablations(table: pd.DataFrame, task: Task) -> list[View]:
    """Return the table of what one hyper-parameter changes, none where no rows differ in one alone."""
    rows = _families(table, task)
    return [View("ablations", "Leak where one hyper-parameter is changed", c.ABLATIONS, rows)] if rows else []


def _families(table: pd.DataFrame, task: Task) -> list[Record]:
    part = records(of_task(table, task))
    return [row | {"defense": row["family"], "ranked": row["mask"] == "dense"} for row in part]


def details(board: pd.DataFrame, task: Task) -> list[View]:
    """Return everything else that is known about the rows of the ranked track."""
    rows = ranking(board, task)
    views = [
        _verdicts(rows),
        View("ranks", "Ranks and uplift", c.RANKS, rows),
        View("choice", "What the attacker chooses", c.CHOICE, rows),
        View("pace", "Speed-up to 90% in steps, and the release alone", c.PACE, rows, BOUNDS),
        *(View(f"pace-{k}", f"Speed-up in {word}, by goal", c.SPEEDUPS[k], rows) for k, word in c.COSTS.items()),
        View("keeps", "What protecting does to the source", c.KEEPS, rows),
        View("pays", "What protecting costs", c.PAYS, rows),
        View("search", "Total compute: a search beside a grid", c.SEARCH, rows),
    ]
    return [view for view in views if not view.empty]


def _verdicts(rows: Sequence[Record]) -> View:
    # What every row fails stands once, in the note; where gates decide the verdict they are not repeated as its reason.
    failed = [failures(row) for row in rows if not yes(row, "baseline")]
    every = [failure for failure in failed[0] if all(failure in found for found in failed)] if failed else []
    shown = [
        {
            **row,
            "reason": "" if row["reason"] == row["gates"] else row["reason"],
            "gates": _told(failure for failure in failures(row) if failure not in every),
        }
        for row in rows
    ]
    note = f"No row passes {_told(every)}." if every else ""
    return View("verdicts", "Verdicts and gates", c.GATES, shown, note)


def _told(failed: Iterable[tuple[str, str]]) -> str:
    return "; ".join(f"{gate}: {reason}" for gate, reason in failed)


def levels(table: pd.DataFrame, board: pd.DataFrame, task: Task) -> list[Record]:
    """Return the robustness by factor of the ranked track's rows, without baselines; factors have names for people."""
    judged = {(row["defense"], row["mask"]) for row in ranking(board, task) if not yes(row, "baseline")}
    rows = [row for row in records(of_task(table, task)) if (row["defense"], row["mask"]) in judged]
    named = [row | {"factor": FACTORS.get(row["factor"], row["factor"]), "value": str(row["value"])} for row in rows]
    return sorted(named, key=_level)


def _level(row: Record) -> tuple[int, float, str]:
    # Factors in the order of FACTORS, rates and batch sizes by what they are, names by the alphabet.
    known = list(FACTORS.values())
    place = known.index(row["factor"]) if row["factor"] in known else len(known)
    try:
        return place, float(row["value"]), ""
    except ValueError:
        return place, 0.0, row["value"]


def factors(found: Sequence[Record], board: pd.DataFrame, task: Task) -> list[View]:
    """Return leak and best accuracy by factor: a row each of the board's, a column each value, a few values a table."""
    views = []
    for factor in dict.fromkeys(row["factor"] for row in found):
        part = [row for row in found if row["factor"] == factor]
        values = list(dict.fromkeys(row["value"] for row in part))
        for start in range(0, len(values), VALUES):
            for name, (said, show) in NUMBERS.items():
                columns = (c.DEFENSE, *(_value(value, name, show) for value in values[start : start + VALUES]))
                key, more = f"{factor}-{name}-{start}".replace(" ", "-"), " (continued)" if start else ""
                views.append(View(key, f"{said} by {factor}{more}", columns, _pivot(part, board, task), FACTOR_NOTE))
    return [view for view in views if not view.empty]


def _value(value: str, name: str, show: Callable[[Any], str]) -> Column:
    key = f"{name} {value}"
    return Column(line(value), name, lambda row: show(row.get(key)), least=key)


def _pivot(part: Sequence[Record], board: pd.DataFrame, task: Task) -> list[Record]:
    held: dict[tuple[str, str], dict[Any, Any]] = {}
    for row in part:
        cells = {f"{name} {row['value']}": row[name] for name in NUMBERS}
        held.setdefault((row["defense"], row["mask"]), {}).update(cells)
    return [{**row, **held[_place(row)]} for row in ranking(board, task) if _place(row) in held]


def _place(row: Record) -> tuple[str, str]:
    return row["defense"], row["mask"]


def faced(coverage: pd.DataFrame, task: Task) -> list[View]:
    """Return a table that says in words which attacks each defense faced, and which not and why."""
    part = coverage[coverage["task"] == task.name]
    named = [row | {"attack": _attack(row)} for row in records(part)]
    tracks = {row["attack"]: row["track"] for row in named}
    defenses = dict.fromkeys(part["defense"])
    rows = [_words(name, [r for r in named if r["defense"] == name], list(tracks)) for name in defenses]
    listing = [f"{track}: {', '.join(line(a) for a, of in tracks.items() if of == track)}" for track in TRACKED]
    note = f"The attacks of this board by track. {'; '.join(text for text in listing if not text.endswith(': '))}."
    return [View("faced", "Which attacks a row faced", c.FACED, rows, note)] if rows else []


def together(table: pd.DataFrame, board: pd.DataFrame) -> list[View]:
    """Return the rows of the ranked track over all tasks, the least leak first; nothing for a single task."""
    kinds = {(r["defense"], r["mask"]): {k: r[k] for k in ("control", "baseline", "ranked")} for r in records(board)}
    part = table[(table["track"] == "target") & (table["tasks"] > 1)].sort_values("leak", kind="stable")
    rows = [row | kinds.get(_place(row), {}) for row in records(part)]
    note = f"Leak is the ratio of uplifts summed over tasks, uplift their mean. {brackets(rows)}"
    return [View("tasks", "Over all tasks", c.TOGETHER, rows, note)] if rows else []


def failed(table: pd.DataFrame, titles: dict[str, str]) -> View:
    """Return the cells that failed."""
    rows = [row | {"title": titles.get(row["task"], row["task"])} for row in records(table)]
    return View("failures", "Cells that failed", c.FAILURES, rows)


def _attack(row: Record) -> str:
    return with_mask(row["attack"], row["mask"])


def _words(defense: str, lines: Sequence[Record], everything: Sequence[str]) -> Record:
    ran = {row["attack"]: row for row in lines if row["runs"] > 0}
    reasons: dict[str, list[str]] = {}
    for row in lines:
        if row["not_applicable"] > 0:
            reasons.setdefault(line(row["reason"]), []).append(row["attack"])
    known = {row["attack"] for row in lines}
    broken = [f"{name} ({r['failed']} of {r['runs']} cells)" for name, r in ran.items() if r["failed"] > 0]
    return {
        "defense": defense,
        "faced": _faced(list(ran), everything),
        "refused": "; ".join(f"{listed(names)} ({why})" for why, names in reasons.items()) or MISSING,
        "unplanned": listed([name for name in everything if name not in known]) or MISSING,
        "broken": listed(broken) or MISSING,
    }


def _faced(names: Sequence[str], everything: Sequence[str]) -> str:
    if len(names) == len(everything):
        return f"all {len(names)}"
    few = f": {listed(names)}" if 0 < len(names) <= 8 else ""
    return f"{len(names)} of {len(everything)}{few}"


def of_task(table: pd.DataFrame, task: Task, track: str = "target") -> pd.DataFrame:
    """Return the lines of one task and track, the ranked one by default."""
    return table[(table["task"] == task.name) & (table["track"] == track)]


def written(views: Iterable[View]) -> list[View]:
    """Return the tables that have rows."""
    return [view for view in views if view.rows]
