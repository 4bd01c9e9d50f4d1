"""Tables of a paper: a report's views as LaTeX, for one column of a page and for two.

Numbers stand in siunitx's S columns, intervals in a column of their own, everything else in braces or words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any, NamedTuple

from ntbench.report.best import best_and_ties
from ntbench.report.columns import Column, dimmed
from ntbench.report.display import MISSING, Record
from ntbench.report.templating import Tex, escape_latex, latex
from ntbench.report.views import View

_NUMBER = re.compile(r"(?P<mean>[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)(?: (?P<ends>\[.*\]))?")
WORDS = Tex(r">{\raggedright\arraybackslash}X")
MARKS = Tex(
    r" Bold: the least of a column, controls aside; $^\dagger$: its interval overlaps that of the least, so that these "
    "runs do not tell the two apart."
)


class Form(NamedTuple):
    """How much of a page a table takes, how many numbers it has room for, and how many letters a line of a heading."""

    suffix: str
    environment: str
    width: Tex
    size: Tex
    numbers: int
    letters: int


TWO = Form("", "table*", Tex(r"\textwidth"), Tex(r"\footnotesize"), 20, 14)
ONE = Form("-column", "table", Tex(r"\columnwidth"), Tex(r"\scriptsize"), 5, 6)
FORMS = (TWO, ONE)


class Told(NamedTuple):
    """A table with its caption and label."""

    view: View
    caption: str
    label: str


@dataclass(frozen=True)
class Part:
    """A column as it is set: its specification, its heading, and a cell for each row; with an interval it is two."""

    spec: Tex
    heading: Tex
    cells: Sequence[Tex]
    marked: bool = False


def latex_tables(told: Sequence[Told], form: Form, cited: Mapping[str, str]) -> str:
    r"""Return a file to `\input`; `cited` has the keys of the papers of rows that have one."""
    shown = [table for one in told for table in _tables(one, form, cited)]
    return latex().get_template("tables.tex.j2").render(tables=shown, form=form)


def _tables(told: Told, form: Form, cited: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    groups = list(_groups(told.view, form))
    for k, columns in enumerate(groups, 1):
        parts = [_part(column, told.view.rows, form, cited) for column in columns]
        marked = any(part.marked for part in parts)
        yield {
            "parts": parts,
            "lines": list(zip(*(part.cells for part in parts), strict=True)),
            "caption": Tex(escape_latex(told.caption) + (MARKS if marked else "")),
            "label": told.label + form.suffix + (f"-{k}" if len(groups) > 1 else ""),
        }


def _groups(view: View, form: Form) -> Iterator[tuple[Column, ...]]:
    """Yield the columns of each table that a view becomes: names and verdicts in all of them, and a few numbers."""
    columns = view.shown
    if form is TWO:
        yield columns
        return
    names, verdicts = columns[:1], [column for column in columns if column.field == "verdict"]
    held: list[Column] = []
    for column in (column for column in columns[1:] if column.numeric):
        if sum(_widths(view.rows, [*held, column])) > form.numbers:
            yield (*names, *held)
            held = []
        held.append(column)
    yield (*names, *held, *verdicts)


def _widths(rows: Sequence[Record], columns: Sequence[Column]) -> list[int]:
    return [1 + any(_ends(column.text(row)) for row in rows) for column in columns]


def _ends(text: str) -> str:
    found = _NUMBER.fullmatch(text)
    return (found and found["ends"]) or ""


def _part(column: Column, rows: Sequence[Record], form: Form, cited: Mapping[str, str]) -> Part:
    texts = [column.text(row) for row in rows]
    if not column.numeric:
        spec = Tex("l") if column.field == "verdict" else WORDS
        cells = [_words(column, row, said, cited) for row, said in zip(rows, texts, strict=True)]
        return Part(spec, Tex(escape_latex(column.heading)), cells)
    best, ties = best_and_ties(rows, column)
    cells = [_number(said, i in best, i in ties) for i, said in enumerate(texts)]
    numbers, heading = f"S[table-format={_format(texts)}]", _stacked(column.heading, form)
    if not any(map(_ends, texts)):
        return Part(Tex(numbers), Tex(f"{{{heading}}}"), cells, bool(best))
    pairs = [Tex(f"{cell} & {_maths(_ends(said))}") for cell, said in zip(cells, texts, strict=True)]
    return Part(Tex(numbers + r"@{\;}l"), Tex(rf"\multicolumn{{2}}{{c}}{{{heading}}}"), pairs, bool(best))


def _stacked(heading: str, form: Form) -> str:
    lines = wrap(heading, form.letters, break_long_words=False)
    return r"\shortstack{" + r"\\".join(map(escape_latex, lines)) + "}"


def _words(column: Column, row: Record, said: str, cited: Mapping[str, str]) -> Tex:
    told = escape_latex(said).replace(r"\_", r"\_\allowbreak{}")
    if column.field != "defense":
        return Tex(told)
    name = rf"\textit{{{told}}}" if dimmed(row) else told
    key = cited.get(str(row.get("defense")))
    return Tex(rf"{name}\ntbcite{{{key}}}" if key else name)


def _number(said: str, best: bool, tied: bool) -> Tex:
    found = _NUMBER.fullmatch(said)
    bold, mark = r"\bfseries " if best else "", r"{$^\dagger$}" if tied else ""
    if not found:
        return Tex(f"{{{bold}{_maths(said) if said != MISSING else '--'}}}{mark}")
    return Tex(f"{bold}{_plain(found['mean'])}{mark}")


def _plain(mean: str) -> str:
    number, e, power = mean.replace(",", "").partition("e")
    return f"{number}{e}{int(power)}" if e else number


def _maths(said: str) -> str:
    return escape_latex(said.replace("-", "\N{MINUS SIGN}")).replace("inf", r"$\infty$")


def _format(texts: Sequence[str]) -> str:
    """Return the room that the numbers of a column take, as siunitx has it: sign, digits, decimals and exponent."""
    means = [_plain(found["mean"]) for found in map(_NUMBER.fullmatch, texts) if found]
    bases, powers = ([mean.partition("e")[i] for mean in means] for i in (0, 2))
    signed = any(base[0] in "+-" for base in bases)
    whole, decimals = (max((len(base.lstrip("+-").partition(".")[i]) for base in bases), default=0) for i in (0, 2))
    power = max(map(len, powers), default=0)
    return f"{'-' * signed}{max(whole, 1)}.{decimals}" + (f"e{power}" if power else "")
