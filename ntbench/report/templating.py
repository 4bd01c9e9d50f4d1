"""Jinja2 environments that escape every value for HTML, Markdown or LaTeX: names and errors come from submissions."""

from __future__ import annotations

import re
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from ntbench.report.display import (
    COLUMNS,
    MISSING,
    NARROW,
    NOTED,
    WIDE,
    cells,
    filled,
    header_groups,
    heading,
    number,
    ratio,
)
from ntbench.report.glossary import COVERAGE, LEADERBOARD, READING, RESULTS

_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\n": " "}
_TEX |= {character: f"\\{character}" for character in "&%$#_{}"}
_TEX |= {"<": "$<$", ">": "$>$", "|": r"\textbar{}", '"': r"\textquotedbl{}", "\N{MINUS SIGN}": "$-$"}
_MARKDOWN = re.compile(r"[\\`*\[\]|#~]|(?<!\w)_|_(?!\w)")


def html() -> Environment:
    """Return the environment of HTML templates."""
    return _environment("ntbench.report", autoescape=True)


def markdown(package: str = "ntbench.report") -> Environment:
    """Return the environment of Markdown templates; those of a package of ours come before ntbench's own."""
    return _environment(package, finalize=escape_markdown)


def latex() -> Environment:
    """Return the environment of LaTeX templates, with `<% %>` for blocks and `<< >>` for values."""
    return _environment(
        "ntbench.report",
        finalize=escape_latex,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
    )


def escape_latex(value: object) -> str:
    """Return a value as LaTeX text in which nothing is a command; characters beyond ASCII become question marks."""
    escaped = "".join(_TEX.get(character, character) for character in str(value))
    return escaped.encode("ascii", "replace").decode()


def escape_markdown(value: object) -> str:
    """Return a value as one line of Markdown in which nothing is markup or HTML."""
    text = _MARKDOWN.sub(lambda found: f"\\{found[0]}", " ".join(str(value).splitlines()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _minus(text: str) -> str:
    return text if text == MISSING else text.replace("-", "\N{MINUS SIGN}")


def _environment(package: str, **options: Any) -> Environment:
    loader = ChoiceLoader([PackageLoader(name) for name in dict.fromkeys((package, "ntbench.report"))])
    environment = Environment(
        loader=loader,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
    environment.globals.update(
        columns=COLUMNS, narrow=NARROW, noted=NOTED, wide=WIDE, glossary=LEADERBOARD, reading=READING
    )
    environment.globals.update(cell_glossary=RESULTS, coverage_glossary=COVERAGE)
    environment.globals.update(filled=filled)
    environment.globals.update(cells=cells, heading=heading, header_groups=header_groups, number=number, ratio=ratio)
    environment.filters["minus"] = _minus
    return environment
