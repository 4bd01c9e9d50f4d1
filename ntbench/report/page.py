"""The report of a run: tables as CSV, Markdown, LaTeX and one self-contained page, with the figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ntbench.errors import UserError
from ntbench.report.files import write_all
from ntbench.report.glossary import GLOSSARIES
from ntbench.report.origin import provenance, suite_facts
from ntbench.report.pictures import Picture, map_pictures, mapped
from ntbench.report.sections import Section, sections
from ntbench.report.tables import MAPPED, Tables
from ntbench.report.templating import html, latex, markdown
from ntbench.report.views import View, failed, together
from ntbench.report.words import worded
from ntbench.suite import Suite
from ntbench.types import Result

OURS = ("*.csv", "*.tex", "*.md", "*.parquet", "figures/*.pdf", "figures/*.png", "figures/*.svg")
"""What an earlier report may have left in its folder."""
TEXTS = (".csv", ".tex", ".md", ".html")


def write_report(folder: Path, results: Iterable[Result], suite: Suite) -> Path:
    """Write FOLDER/report from results alone and return the path of its index.html, which opens offline.

    Raises UserError where there are no results, and for results that must not be mixed.
    """
    found = list(results)
    if not found:
        raise UserError(f"{folder}: holds no results yet; run `ntbench run {suite.name}` first")
    out = folder / "report"
    write_all(out, report_files(Tables.of(found, suite), suite, provenance(found)), OURS)
    return out / "index.html"


def report_files(tables: Tables, suite: Suite, origin: Mapping[str, Mapping[str, str]]) -> dict[str, bytes]:
    """Return every file of a report by its path in the folder; the page comes last."""
    parts = list(sections(tables, suite))
    maps = _maps(tables, suite)
    pictures = [picture for part in parts for picture in part.pictures.values()] + maps
    context: dict[str, Any] = {"suite": suite, "sections": parts, "maps": maps}
    context |= {
        "origin": suite_facts(suite, tables.detectable),
        "provenance": origin,
        "ran": int(tables.coverage["runs"].sum()),
    }
    context["inapplicable"] = int(tables.coverage["not_applicable"].sum())
    context["together"] = together(tables.tasks, tables.leaderboard)
    context["failures"] = failed(tables.failures, {task.name: task.title for task in suite.tasks})
    files = dict(tables.files)
    for picture in pictures:
        files |= {f"figures/{picture.stem}.{kind}": data for kind, data in picture.files.items()}
    context["glossaries"] = {name: columns for name, columns in GLOSSARIES.items() if name in files}
    files["leaderboard.md"] = _encoded(markdown().get_template("leaderboard.md.j2").render(context))
    files |= {f"{name}.tex": _latex(views, suite) for name, views in _papers(parts).items() if views}
    files["index.html"] = _encoded(html().get_template("index.html.j2").render(context))
    return {name: _worded(name, data, suite.objective.name) for name, data in files.items()}


def _maps(tables: Tables, suite: Suite) -> list[Picture]:
    if tables.map["task"].nunique() < MAPPED:
        return []
    ranked = tables.map[tables.map["track"] == "target"]
    return list(map_pictures(ranked, mapped(tables.leaderboard), suite.protocol).values())


def _papers(parts: Sequence[Section]) -> dict[str, list[tuple[Section, View]]]:
    return {
        "leaderboard": [(part, part.headline) for part in parts],
        "beside": [(part, view) for part in parts for view in part.beside],
        "factors": [(part, view) for part in parts for view in part.factors],
    }


def _latex(views: Sequence[tuple[Section, View]], suite: Suite) -> bytes:
    tables = [
        {
            "view": view,
            "caption": " ".join([f"{suite.protocol}, {part.title}: {view.title}.", view.note, part.gates]),
            "label": "tab:" + re.sub(r"[^A-Za-z0-9-]+", "-", f"{suite.protocol}-{part.task.name}-{view.key}"),
        }
        for part, view in views
    ]
    return _encoded(latex().get_template("tables.tex.j2").render(tables=tables))


def _worded(name: str, data: bytes, objective: str) -> bytes:
    """Return a file of text in the words of an objective, any other as it is."""
    return _encoded(worded(data.decode(), objective)) if name.endswith(TEXTS) else data


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")
