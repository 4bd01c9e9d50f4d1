"""What can be combined: every defense, attack, domain, metric and suite, with one line each."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from rich.table import Table

from ntbench.domains import describe_domains
from ntbench.registry import registry
from ntbench.report.declared import UnreadableError, declared_methods, described
from ntbench.suite import load_suite, suite_names


def catalogue(plugins: Sequence[str]) -> list[Table]:
    """Return one table a kind of thing."""
    lines = _lines(plugins)
    tables = {
        "defenses": lines["defense"],
        "attacks": lines["attack"],
        "domains": describe_domains() | lines["domain"],
        "metrics": lines["metric"],
        "suites": {name: load_suite(name).summary for name in suite_names()},
    }
    # There is no metric before somebody brings one.
    return [_table(title, told) for title, told in tables.items() if told]


def contents(title: str, names: Sequence[str], counts: Mapping[str, Sequence[int]]) -> Table:
    """Return the images a class of every split, with their sum; classes without names have their labels alone."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in ("label", "class", *counts):
        table.add_column(column, justify="left" if column == "class" else "right")
    for label, row in enumerate(zip(*counts.values(), strict=True)):
        table.add_row(str(label), names[label] if names else "", *map(str, row))
    table.add_row("", "all", *(str(sum(column)) for column in counts.values()))
    return table


def _lines(plugins: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return one line a thing by kind and name; nothing is imported where all are ours and their source tells."""
    if not plugins and not registry.others():
        with suppress(UnreadableError):
            return {"domain": {}, "metric": {}} | declared_methods()
    return imported(plugins)


def imported(plugins: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return one line a thing of the registry by kind and name, plug-ins and other packages among them."""
    for plugin in plugins:
        registry.load_plugin(plugin)
    said = {"defense": _line, "attack": _line, "domain": _domain_line, "metric": _metric_line}
    if registry.names("metric"):
        from ntbench.measure.registered import known

        known()
    return {kind: {name: say(registry.get(kind, name)) for name in registry.names(kind)} for kind, say in said.items()}


def _domain_line(domain: Any) -> str:
    return str(domain.family().domains[domain.name])


def _metric_line(metric: Any) -> str:
    return str(metric.meaning())


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
