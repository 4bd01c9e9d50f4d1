"""The report of a run: tables as CSV, Markdown, LaTeX and one self-contained page, with the figures."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from ntbench.display import COLUMNS, MISSING, NARROW, cells, heading, number, percent, ratio
from ntbench.errors import UserError
from ntbench.figures import task_figures
from ntbench.glossary import LEADERBOARD, READING, RULES
from ntbench.suite import Suite
from ntbench.tables import (
    failures_table,
    heatmap_table,
    leaderboard_table,
    learning_curves,
    results_table,
    trajectories_table,
)
from ntbench.types import Result

DECIMALS = 6
CAPTIONS = {
    "learning_curves": (
        "Sample-wise learning curves",
        "Test accuracy after the strongest attack (colour) and from scratch (black), by how many target samples the "
        "attacker has. Red area: the released weights help the attacker; blue area: they hurt. The area is SLC-AUC. "
        "The dotted line is what the paper's own attack suggests. Bars span the seeds.",
    ),
    "overhead_curves": (
        "Overhead",
        "Test accuracy on the way of the attack, with the best attack at each step, at the largest sample ratio; bands "
        "span the seeds. The overhead is how far right of scratch the protected curve crosses the dotted line; '>' "
        "means that it did not within the budget.",
    ),
    "attack_heatmap": (
        "Attacks against defenses",
        "SLC-AUC against tuned scratch for each single attack. Red: better than scratch for the attacker; blue: worse. "
        "Frames mark the attack of each paper; the last line is the worst case, which picks an attack per sample count. "
        "Grey: the attack did not finish on every seed and ratio.",
    ),
    "intactness": (
        "What the defender pays, what the attacker loses",
        "Loss of source accuracy against worst-case SLC-AUC, with 95 % intervals over seeds. A defense that holds lies "
        "in the shaded corner. Hollow: the attacker keeps the released zeros.",
    ),
}
_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {c: f"\\{c}" for c in "&%$#_{}"}
_TEX |= {"<": "$<$", ">": "$>$", "|": r"\textbar{}", "\n": " "}


def write_report(run: Path, results: Iterable[Result], suite: Suite, selection: str = "val") -> Path:
    """Write RUN/report and return the path of its index.html, which opens offline.

    Raises UserError for a run without results, an unknown selection rule, and results that must not be mixed.
    """
    found = list(results)
    if not found:
        raise UserError(f"{run}: holds no results; run `ntbench run {suite.name}` first")
    board, out = leaderboard_table(found, suite, selection), run / "report"
    (out / "figures").mkdir(parents=True, exist_ok=True)
    cells_table, trajectories = results_table(found), trajectories_table(found)
    cells_table.to_csv(out / "results.csv", index=False)
    trajectories.to_parquet(out / "trajectories.parquet", index=False)
    board.round(DECIMALS).to_csv(out / "leaderboard.csv", index=False)
    context = {"protocol": suite.protocol, "rule": RULES[selection], "selection": selection, "tasks": task_rows(board)}
    (out / "leaderboard.md").write_text(render_markdown("leaderboard.md.j2", **context), encoding="utf-8")
    (out / "leaderboard.tex").write_text(_latex().get_template("leaderboard.tex.j2").render(context), encoding="utf-8")
    good = trajectories[trajectories["key"].isin(cells_table.loc[cells_table["status"] == "ok", "key"])]
    tables = (board, learning_curves(found, suite, selection), good, heatmap_table(found, suite, selection))
    context |= {
        "suite": suite,
        "figures": _figures(out / "figures", tables, selection),
        "failures": failures_table(found).to_dict("records"),
        "count": len(found),
        "provenance": provenance(found),
        "overheads": _overheads(),
    }
    index = out / "index.html"
    index.write_text(_html().get_template("index.html.j2").render(context), encoding="utf-8")
    return index


def terminal_table(leaderboard: pd.DataFrame) -> Table:
    """Return the leaderboard for the terminal, the controls dimmed."""
    table = Table(caption="SLC-AUC: negative is worse than scratch. Overhead: steps over those of scratch, to 90 %.")
    several = leaderboard["task"].nunique() > 1
    for name in ("task", *NARROW) if several else NARROW:
        numeric = name in COLUMNS and COLUMNS[name].numeric
        table.add_column(Text(heading(name) if name in COLUMNS else "Task"), justify="right" if numeric else "left")
    for task, rows in task_rows(leaderboard).items():
        for row in rows:
            texts = ([task] if several else []) + list(cells(row, NARROW).values())
            table.add_row(*map(Text, texts), style="dim" if row["control"] or not row["ranked"] else None)
        table.add_section()
    return table


def task_rows(leaderboard: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Return the leaderboard's rows by task, in its order."""
    groups = leaderboard.groupby("task", sort=False)
    return {str(task): [{str(k): v for k, v in r.items()} for r in part.to_dict("records")] for task, part in groups}


def render_markdown(template: str, package: str = "ntbench", **context: Any) -> str:
    """Render a Markdown template of one of our packages, every value escaped."""
    environment = Environment(
        loader=PackageLoader(package), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False, finalize=_escape_markdown,
    )  # fmt: skip
    environment.globals |= _vocabulary()
    return environment.get_template(template).render(context)


def provenance(results: Sequence[Result]) -> dict[str, dict[str, list[str]]]:
    """Return the distinct data digests, versions and devices of results, by name."""
    found: dict[str, dict[str, set[str]]] = {"data": {}, "versions": {}, "device": {}}
    for origin in (r.provenance for r in results if r.provenance):
        for name, value in origin.data.items():
            found["data"].setdefault(name, set()).add(value)
        for name, value in origin.versions.items():
            found["versions"].setdefault(name, set()).add(value)
        found["device"].setdefault("device", set()).add(origin.device)
    return {kind: {name: sorted(names[name]) for name in sorted(names)} for kind, names in found.items()}


def _figures(folder: Path, tables: Sequence[pd.DataFrame], selection: str) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for task in dict.fromkeys(tables[0]["task"]):
        parts = [table[table["task"] == task].reset_index(drop=True) for table in tables]
        for name, figure in task_figures(parts[0], parts[1], parts[2], parts[3], selection).items():
            title, caption = CAPTIONS[name]
            image = {"title": title, "caption": caption, "data": _saved(figure, folder / f"{name}-{task}")}
            found.setdefault(task, []).append(image)
    return found


def _saved(figure: Figure, stem: Path) -> str:
    figure.savefig(stem.with_name(f"{stem.name}.pdf"))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    stem.with_name(f"{stem.name}.png").write_bytes(buffer.getvalue())
    return base64.b64encode(buffer.getvalue()).decode()


def _overheads() -> list[dict[str, str]]:
    names = [name for name in LEADERBOARD if re.fullmatch(r"overhead_[a-z]+_\d+", name)]
    parts = [(name, *name.split("_")[1:]) for name in names]
    return [{"name": name, "cost": cost, "q": f"{q} %"} for name, cost, q in parts]


def _vocabulary() -> dict[str, Any]:
    shown: dict[str, Any] = {"columns": COLUMNS, "narrow": NARROW, "glossary": LEADERBOARD, "reading": READING}
    return shown | {"cells": cells, "heading": heading, "ratio": ratio, "number": number, "percent": percent}


def _html() -> Environment:
    environment = Environment(
        loader=PackageLoader("ntbench"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=True
    )
    environment.globals |= _vocabulary()
    environment.filters["minus"] = _minus
    return environment


def _latex() -> Environment:
    environment = Environment(
        loader=PackageLoader("ntbench"), undefined=StrictUndefined, autoescape=False, finalize=escape_latex,
        block_start_string="<%", block_end_string="%>", variable_start_string="<<", variable_end_string=">>",
        comment_start_string="<#", comment_end_string="#>", trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.globals |= _vocabulary()
    environment.filters["minus"] = _minus
    return environment


def _minus(text: str) -> str:
    return text if text == MISSING else text.replace("-", "\N{MINUS SIGN}")


def escape_latex(value: Any) -> str:
    """Return a value as LaTeX text that cannot be read as a command."""
    text = "".join(_TEX.get(character, character) for character in str(value))
    return text.replace("\N{MINUS SIGN}", "$-$")


def _escape_markdown(value: Any) -> str:
    text = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", str(value)).replace("\n", " ")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
