"""The report of a run: tables as CSV, Markdown, LaTeX and one self-contained page, with the figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from ntbench.errors import UserError
from ntbench.measure.registered import Registered
from ntbench.report.files import write_all
from ntbench.report.glossary import GLOSSARIES, LEADERBOARD
from ntbench.report.latex import FORMS, Told, latex_tables
from ntbench.report.metrics import meanings
from ntbench.report.origin import provenance, suite_facts
from ntbench.report.papers import bibliography, cited_rows, papers
from ntbench.report.pictures import Picture, map_pictures, mapped
from ntbench.report.sections import Section, sections
from ntbench.report.tables import MAPPED, Tables
from ntbench.report.templating import html, markdown
from ntbench.report.views import View, failed, together
from ntbench.report.words import worded
from ntbench.suite import Suite
from ntbench.types import Result, columns_of

OURS = (
    "*.csv",
    "*.tex",
    "*.bib",
    "*.md",
    "*.parquet",
    "figures/*.csv",
    "figures/*.pdf",
    "figures/*.png",
    "figures/*.svg",
)
"""What an earlier report may have left in its folder."""
TEXTS = (".csv", ".tex", ".md", ".html")


def write_report(folder: Path, results: Iterable[Result], suite: Suite, registered: Registered | None = None) -> Path:
    """Write FOLDER/report from results alone and return the path of its index.html, which opens offline.

    What metrics gave for the results stands beside the other numbers.

    Raises UserError where there are no results, and for results that must not be mixed.
    """
    found = columns_of(results)
    if not found:
        raise UserError(f"{folder}: holds no results yet; run `ntbench run {suite.name}` first")
    out = folder / "report"
    write_all(out, report_files(Tables.of(found, suite, registered), suite, provenance(found)), OURS)
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
        files |= {f"figures/{picture.stem}{end}": data for end, data in picture.files.items()}
    context["papers"] = found = papers(suite)
    context["glossaries"] = {name: columns for name, columns in GLOSSARIES.items() if name in files}
    context["glossary"] = context["glossaries"]["leaderboard.csv"] = LEADERBOARD | meanings(tables.metrics)
    files["leaderboard.md"] = _encoded(markdown().get_template("leaderboard.md.j2").render(context))
    files |= _latex(parts, context["together"], suite, cited_rows(suite, found))
    files |= {"papers.bib": _encoded(bibliography([*found.values()]))} if found else {}
    files["index.html"] = _encoded(html().get_template("index.html.j2").render(context))
    return {name: _worded(name, data, suite.objective.name) for name, data in files.items()}


def _maps(tables: Tables, suite: Suite) -> list[Picture]:
    if tables.map["task"].nunique() < MAPPED:
        return []
    ranked = tables.map[tables.map["track"] == "target"]
    return list(map_pictures(ranked, mapped(tables.leaderboard), suite.protocol).values())


def _latex(
    parts: Sequence[Section], together: Sequence[View], suite: Suite, cited: Mapping[str, str]
) -> dict[str, bytes]:
    files = {
        "leaderboard": [_told(suite, part, part.headline) for part in parts],
        "beside": [_told(suite, part, view) for part in parts for view in part.beside],
        "factors": [_told(suite, part, view) for part in parts for view in part.factors],
        "tasks": [Told(view, f"{suite.protocol}: {view.title}. {view.note}", _label(suite, view)) for view in together],
    }
    return {
        f"{name}{form.suffix}.tex": _encoded(latex_tables(told, form, cited))
        for (name, told), form in product(files.items(), FORMS)
        if told
    }


def _told(suite: Suite, part: Section, view: View) -> Told:
    first = view is part.headline
    title = part.title if first else f"{part.title}: {view.title}"
    caption = " ".join(filter(None, [f"{suite.protocol}, {title}.", view.note, part.gates if first else ""]))
    return Told(view, caption, _label(suite, view, f"{part.task.name}-"))


def _label(suite: Suite, view: View, task: str = "") -> str:
    return "tab:" + re.sub(r"[^A-Za-z0-9-]+", "-", f"{suite.protocol}-{task}{view.key}")


def _worded(name: str, data: bytes, objective: str) -> bytes:
    """Return a file of text in the words of an objective, any other as it is."""
    return _encoded(worded(data.decode(), objective)) if name.endswith(TEXTS) else data


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")
