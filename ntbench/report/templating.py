"""Jinja2 environments that escape every value for HTML, Markdown or LaTeX: names and errors come from submissions."""

from __future__ import annotations

import re
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from ntbench.report.columns import dimmed
from ntbench.report.display import MISSING
from ntbench.report.glossary import LEADERBOARD, READING
from ntbench.report.words import worded

_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\n": " "}
_TEX |= {character: f"\\{character}" for character in "&%$#_{}"}
_TEX |= {"<": "$<$", ">": "$>$", "|": r"\textbar{}", '"': r"\textquotedbl{}", "\N{MINUS SIGN}": "$-$"}
_TEX |= {"[": "{[}", "]": "{]}"}  # a bracket after \\ would be its argument
_MARKDOWN = re.compile(r"[\\`*\[\]|#~]|(?<!\w)_|_(?!\w)")


class Tex(str):
    """LaTeX that was made here, of escaped parts: it enters a template as it stands."""


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
    """Return a value as LaTeX text in which nothing is a command; characters beyond ASCII become question marks.

    `Tex` is such text already and stays.
    """
    if isinstance(value, Tex):
        return str(value)
    escaped = "".join(_TEX.get(character, character) for character in " ".join(str(value).split()))
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
    environment.globals.update(glossary=LEADERBOARD, reading=READING, dimmed=dimmed)
    environment.filters |= {"minus": _minus, "worded": worded}
    return environment
