"""Published rows as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ntbench.errors import UserError
from ntbench.report.glossary import RULES
from ntbench.report.templating import markdown

from .literature import beside
from .published import Published, read
from .schema import recomputed


def render(folder: Path) -> str:
    """Return the leaderboard of the published rows below a results folder, one table per suite and task.

    Raises UserError where there are none, or one cannot be read.
    """
    groups: dict[tuple[str, str], list[Published]] = {}
    for path in sorted(folder.glob("*/*/*.json")):
        file = read(path)
        groups.setdefault((file.protocol, file.task.name), []).append(file)
    if not groups:
        raise UserError(f"{folder} holds no published rows; write some with `ntbench publish RUN`")
    sections = [_section(files) for _, files in sorted(groups.items())]
    template = markdown("ntbench.leaderboard").get_template("README.md.j2")
    return template.render(sections=sections, rule=RULES["val"])


def _section(files: list[Published]) -> dict[str, Any]:
    first, rows = files[0], _rows(files)
    suite, task = first.protocol.rpartition("-")[0], first.task.name
    known = list(beside(suite, task, rows, first.ratios))
    return {"protocol": first.protocol, "task": task, "rows": rows, "file": first, "literature": known}


def _rows(files: list[Published]) -> list[dict[str, Any]]:
    stored = {(file.defense.label, row.mask): row.record() for file in files for row in file.rows}
    rows = []
    for record in recomputed(files).to_dict("records"):
        place = {name: record[name] for name in ("rank", "rank_low", "rank_high", "task", "defense", "mask")}
        rows.append(stored[record["defense"], record["mask"]] | place)
    return rows
