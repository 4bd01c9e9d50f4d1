"""What a terminal of 80 characters shows: names fold over lines, numbers stay whole, nothing is cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from ntbench.measure.registered import Metrics
from ntbench.measure.reproduced import Reproduction
from ntbench.report import metrics, views
from ntbench.report.columns import dimmed
from ntbench.report.protocols import protocols
from ntbench.report.sentences import gate_line
from ntbench.report.views import View
from ntbench.suite import Suite

WIDTH = 80
UNBROKEN = 100_000
COLOURS = {"holds": "green", "leaks": "red", "open": "yellow"}
MEANING = (
    "Leak: what the release still adds for an attacker over starting without it, as a share of what the unprotected "
    "release adds: 0 nothing, 1 no protection. SLC-AUC: of the release alone; below 0 worse than starting without it. "
    "Speed-up: cost of the baseline to 90% of what it reaches over the attacker's; < marks an upper bound. Source drop "
    "in points."
)
_PIECE = re.compile(r"\s+|[^\s_/-]*[_/-]+|[^\s_/-]+")


def headlines(board: pd.DataFrame, suite: Suite, width: int = WIDTH) -> list[RenderableType]:
    """Return the seven columns and the gates of every task, and in the end what the columns mean."""
    shown: list[RenderableType] = []
    for view in views.written(views.headline(board, task, suite.axis) for task in suite.tasks):
        told = view.worded(suite.objective.name)
        shown.append(Group(tabled(told, told.title, width), Text(f"{gate_line(view.rows)}\n")))
    return [*shown, Text(MEANING, style="dim")] if shown else []


def details(board: pd.DataFrame, suite: Suite, width: int = WIDTH, brought: Metrics = ()) -> list[RenderableType]:
    """Return the small tables of every task: tracks, claims, what else is known, and metrics that somebody brought."""
    return [
        Group(tabled(view.worded(suite.objective.name), f"{task.title}: {view.title}", width), "")
        for task in suite.tasks
        for view in [
            *views.tracks(board, task),
            *views.claim(board, task),
            *views.details(board, task),
            *metrics.views(board, task, brought),
        ]
    ]


def in_colours(shown: Iterable[RenderableType]) -> str:
    """Return what a terminal of any width would show, with the codes of its colours; lines of text are not broken."""
    console = Console(file=StringIO(), width=UNBROKEN, force_terminal=True, color_system="standard", no_color=False)
    with console.capture() as captured:
        for part in shown:
            console.print(part)
    return captured.get().rstrip("\n")


def facts(pairs: Mapping[str, str], width: int = WIDTH) -> Table:
    """Return names and what is said of them, a line each; what is empty is left out."""
    held = {name: said for name, said in pairs.items() if said}
    names = max(map(len, held), default=0)
    table = Table.grid(padding=(0, 2))
    for name, said in held.items():
        table.add_row(Text(name, style="dim"), Text(folded(said, width - names - 2)))
    return table


def repeated(found: Reproduction, suite: Suite, width: int = WIDTH) -> list[RenderableType]:
    """Return what the papers' own protocols give, a table a task that has such runs."""
    shown = [(task, view) for task in suite.tasks for view in protocols(found, task)]
    return [Group(tabled(view, f"{task.title}: {view.title}", width), "") for task, view in shown]


def folded(said: str, width: int) -> str:
    """Return a text in lines of at most `width` characters, broken after spaces, hyphens, underscores and slashes."""
    lines = [""]
    for piece in _PIECE.findall(said):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        piece = piece if lines[-1] else piece.lstrip()
        while len(piece.rstrip()) > width:
            lines[-1:] = [piece[:width], ""]
            piece = piece[width:]
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def shared(needs: Sequence[int], room: int) -> list[int]:
    """Return widths that fit into the room: who needs less than an equal share gets that, the others share the rest."""
    given = [0] * len(needs)
    for rank, i in enumerate(sorted(range(len(needs)), key=lambda i: needs[i])):
        given[i] = max(1, min(needs[i], (room - sum(given)) // (len(needs) - rank)))
    return given


def tabled(view: View, title: str, width: int = WIDTH) -> Table:
    """Return a table that fits into so many characters."""
    table = Table(
        title=Text(title, style="bold"),
        title_justify="left",
        caption=Text(view.note) if view.note else None,
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=0,
    )
    texts = [[column.text(row) for column in view.shown] for row in view.rows]
    widths = _widths(view, texts, width)
    for column, room in zip(view.shown, widths, strict=True):
        justify: JustifyMethod = "right" if column.numeric else "left"
        table.add_column(Text(folded(column.heading, room)), justify=justify, width=room, no_wrap=True)
    fields = [column.field for column in view.shown]
    for row, line in zip(view.rows, texts, strict=True):
        cells = (_cell(*cell) for cell in zip(line, fields, widths, strict=True))
        table.add_row(*cells, style="dim" if dimmed(row) else None)
    return table


def _widths(view: View, texts: Sequence[Sequence[str]], width: int) -> list[int]:
    # Numbers stay whole; what they leave is shared by the names.
    columns = view.shown
    words = [max(len(piece) for piece in _PIECE.findall(column.heading)) for column in columns]
    needs = [max(head, *(len(line[i]) for line in texts)) for i, head in enumerate(words)]
    fixed = sum(need for need, column in zip(needs, columns, strict=True) if column.numeric)
    named = [need for need, column in zip(needs, columns, strict=True) if not column.numeric]
    room = iter(shared(named, width - fixed - len(columns) + 1))
    return [need if column.numeric else next(room) for need, column in zip(needs, columns, strict=True)]


def _cell(said: str, field: str, width: int) -> Text:
    return Text(folded(said, width), style=COLOURS.get(said, "") if field == "verdict" else "")
