"""The report of a run: tables as CSV, Markdown, LaTeX and one self-contained page, with the figures."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from ntbench.errors import UserError
from ntbench.measure.costs import QUANTILES
from ntbench.measure.curves import COSTS
from ntbench.measure.tables import (
    coverage_table,
    failures_table,
    heatmap_table,
    leaderboard_table,
    learning_curves,
    results_table,
    trajectories_table,
)
from ntbench.report.display import COLUMNS, cells, number
from ntbench.report.glossary import RULES
from ntbench.report.templating import html, latex, markdown
from ntbench.suite import Suite
from ntbench.types import Result

DECIMALS = 6
# Eighty columns hold these and no more; the page has the intervals.
TERMINAL = {
    "rank": "#",
    "defense": "Defense",
    "data": "Data",
    "paper": "Paper",
    "grid": "Grid",
    "auto": "Auto",
    "worst": "Worst",
    "overhead": "over-\nhead",
    "worst_attack": "Attack",
    "worst_steps": "Steps",
    "holds": "Holds",
}
CAPTION = (
    "SLC-AUC under the paper's attack, the best of the grid, the automatic attack and the worst case; below 0 the "
    "attacker does worse than from scratch. Overhead: steps to 90 % of what scratch reaches, over those of scratch. "
    "Attack: the worst, with its steps over all sample ratios. Data that the defense needs: S source labels, T target "
    "labels, t target images. Holds: worst case below 0 with its interval, overhead at least 1, at most 2 points of "
    "source accuracy lost. *: the attacker keeps the released zeros. Selection rule: {selection}."
)
CAPTIONS = {
    "learning_curves": (
        "Sample-wise learning curves",
        "Test accuracy after the strongest attack (colour) and from scratch (black), by how many target samples the "
        "attacker has. Red area: the released weights help the attacker; blue area: they hurt. The area is SLC-AUC. "
        "The dotted line is where the attack of the paper ends. Bars span the seeds.",
    ),
    "overhead_curves": (
        "Overhead",
        "Test accuracy on the way of the attack, with the best attack until each step, at the largest sample ratio; "
        "bands span the seeds. The overhead is how many times as many steps as scratch the protected curve takes to "
        "the dotted line; '>' means that it did not get there within the budget. What has ended keeps its model.",
    ),
    "attack_heatmap": (
        "Attacks against defenses",
        "SLC-AUC against tuned scratch for each single attack. Red: better than scratch for the attacker; blue: worse. "
        "Frames mark the attack of each paper. The last line is the worst case, which picks per sample count. "
        "Grey: the attack did not finish on every seed and sample ratio, or cannot face the defense.",
    ),
    "intactness": (
        "What the defender pays, what the attacker loses",
        "Loss of source accuracy against worst-case SLC-AUC, with 95 % intervals over seeds. A defense that holds lies "
        "in the shaded corner. Hollow: the attacker keeps the released zeros.",
    ),
}


def write_report(run: Path, results: Iterable[Result], suite: Suite, selection: str = "val") -> Path:
    """Write RUN/report and return the path of its index.html, which opens offline.

    Raises UserError for a run without results, an unknown selection rule, and results that must not be mixed.
    """
    found = list(results)
    if not found:
        raise UserError(f"{run}: holds no results yet; run `ntbench run {suite.name}` first")
    board, out = leaderboard_table(found, suite, selection), run / "report"
    grid, trajectories = results_table(found), trajectories_table(found)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    grid.to_csv(out / "results.csv", index=False)
    trajectories.to_parquet(out / "trajectories.parquet", index=False)
    board.round(DECIMALS).to_csv(out / "leaderboard.csv", index=False)
    coverage = coverage_table(found)
    coverage.to_csv(out / "coverage.csv", index=False)
    context = {"suite": suite, "selection": selection, "rule": RULES[selection], "tasks": task_rows(board)}
    _write(out / "leaderboard.md", markdown().get_template("leaderboard.md.j2").render(context))
    _write(out / "leaderboard.tex", latex().get_template("leaderboard.tex.j2").render(context))
    good = trajectories[trajectories["key"].isin(grid.loc[grid["status"] == "ok", "key"])]
    tables = (board, learning_curves(found, suite, selection), good, heatmap_table(found, suite, selection))
    context |= {"figures": _figures(out / "figures", tables, selection), "costs": COSTS, "quantiles": QUANTILES}
    context |= {"failures": failures_table(found).to_dict("records"), "count": int(coverage["runs"].sum())}
    context |= {"coverage": coverage_lines(coverage), "na": int(coverage["not_applicable"].sum())}
    context |= {"provenance": _provenance(found), "recipes": _recipes(found)}
    _write(out / "index.html", html().get_template("index.html.j2").render(context))
    return out / "index.html"


def terminal_table(leaderboard: pd.DataFrame) -> Table:
    """Return the leaderboard for the terminal; controls and rows without a rank are dimmed."""
    caption = CAPTION.format(selection=", ".join(leaderboard["selection"].unique()))
    table = Table(caption=caption, caption_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0)
    for name, title in TERMINAL.items():
        justify: JustifyMethod = "right" if COLUMNS[name].numeric else "left"
        # Names of attacks alone give way where there is no room.
        table.add_column(title, justify=justify, overflow="ellipsis", no_wrap=name != "worst_attack")
    for task, rows in task_rows(leaderboard).items():
        table.add_row("", Text(task, style="bold"))
        for row in rows:
            texts = cells(row, tuple(TERMINAL)) | {
                "rank": number(row["rank"], 0),
                "defense": row["defense"] + ("*" if row["mask"] == "keep" else ""),
            }
            style = "dim" if row["control"] or not row["ranked"] else None
            table.add_row(*(Text(text, no_wrap=True) for text in texts.values()), style=style)
        table.add_section()
    return table


def task_rows(leaderboard: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Return the leaderboard's rows by task, in its order."""
    groups = leaderboard.groupby("task", sort=False)
    return {str(task): [{str(k): v for k, v in r.items()} for r in part.to_dict("records")] for task, part in groups}


def coverage_lines(coverage: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Return by task one line per defense and mask: its attacks that ran, its cells, and the others by reason."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for (task, defense, mask), part in coverage.groupby(["task", "defense", "mask"], sort=False):
        line = {"defense": defense, "mask": mask, "attacks": int((part["runs"] > 0).sum())}
        line |= {name: int(part[name].sum()) for name in ("runs", "failed")}
        refused = part[part["not_applicable"] > 0].groupby("reason")["attack"]
        lines.setdefault(str(task), []).append(line | {"refused": {why: list(names) for why, names in refused}})
    return lines


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _provenance(results: Sequence[Result]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, set[str]]] = {"Data": {}, "Versions": {}, "Devices": {}}
    for origin in (r.provenance for r in results if r.provenance):
        for name, value in origin.data.items():
            found["Data"].setdefault(name, set()).add(value)
        for name, value in origin.versions.items():
            found["Versions"].setdefault(name, set()).add(value)
        found["Devices"].setdefault("device", set()).add(origin.device)
    return {kind: {name: ", ".join(sorted(names[name])) for name in sorted(names)} for kind, names in found.items()}


def _recipes(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    specs = {(spec.kind, spec.label): spec for r in results for spec in (r.cell.defense, r.cell.attack)}
    return {f"{kind} {label}": spec.recipe() for (kind, label), spec in sorted(specs.items(), reverse=True)}


def _figures(folder: Path, tables: Sequence[pd.DataFrame], selection: str) -> dict[str, list[dict[str, str]]]:
    # The terminal table must not wait for seaborn.
    from ntbench.report.figures import save, task_figures

    found: dict[str, list[dict[str, str]]] = {}
    for task in dict.fromkeys(tables[0]["task"]):
        board, curves, trajectories, heat = (t[t["task"] == task].reset_index(drop=True) for t in tables)
        found[task] = []
        for name, figure in task_figures(board, curves, trajectories, heat, selection).items():
            title, caption = CAPTIONS[name]
            png = base64.b64encode(save(figure, folder / f"{name}-{task}")).decode()
            found[task].append({"title": title, "caption": caption, "png": png})
    return found
