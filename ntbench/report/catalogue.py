"""What can be combined: every defense, attack, domain and suite, with one line each."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from rich.table import Table

from ntbench.registry import registry
from ntbench.suite import load_suite, suite_names
from ntbench.tasks.data import describe_domains


def catalogue(plugins: Iterable[str]) -> list[Table]:
    """Return one table a kind of thing."""
    for plugin in plugins:
        registry.load_plugin(plugin)
    return [
        _table("defenses", {name: _summary(registry.get("defense", name)) for name in registry.names("defense")}),
        _table("attacks", {name: _summary(registry.get("attack", name)) for name in registry.names("attack")}),
        _table("domains", describe_domains() | {name: _line(name) for name in registry.names("domain")}),
        _table("suites", {name: load_suite(name).summary for name in suite_names()}),
    ]


def _line(domain: str) -> str:
    return str(registry.get("domain", domain).family().domains[domain])


def _summary(method: Any) -> str:
    module = inspect.getmodule(method)
    text = inspect.getdoc(module) or inspect.getdoc(method) or ""
    first = text.split("\n\n")[0].replace("\n", " ")
    return f"{first} Needs {method.needs()}."


def _table(title: str, lines: dict[str, str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, line in lines.items():
        table.add_row(name, line)
    return table
