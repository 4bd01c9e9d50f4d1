"""What can be combined: every defense, attack, domain and suite, with one line each."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, get_args

from rich.table import Table

from ntbench.domains import describe_domains
from ntbench.registry import registry
from ntbench.report.declared import UnreadableError, declared_methods, described
from ntbench.suite import load_suite, suite_names
from ntbench.types import Kind


def catalogue(plugins: Sequence[str]) -> list[Table]:
    """Return one table a kind of thing."""
    methods = _methods(plugins)
    return [
        _table("defenses", methods["defense"]),
        _table("attacks", methods["attack"]),
        _table("domains", describe_domains()),
        _table("suites", {name: load_suite(name).summary for name in suite_names()}),
    ]


def _methods(plugins: Sequence[str]) -> dict[Kind, dict[str, str]]:
    """Return one line a method; nothing is imported where all of them are ours and their source tells."""
    if not plugins and not registry.others():
        with suppress(UnreadableError):
            return declared_methods()
    return imported_methods(plugins)


def imported_methods(plugins: Iterable[str]) -> dict[Kind, dict[str, str]]:
    """Return one line a method, plug-ins and other packages among them, as their classes say."""
    for plugin in plugins:
        registry.load_plugin(plugin)
    return {kind: {name: _line(registry.get(kind, name)) for name in registry.names(kind)} for kind in get_args(Kind)}


def _line(method: Any) -> str:
    module = inspect.getmodule(method)
    return described(inspect.getdoc(module) or inspect.getdoc(method) or "", method.needs())


def _table(title: str, lines: dict[str, str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, line in lines.items():
        table.add_row(name, line)
    return table
