"""Commands about what is registered: what there is, whether it keeps the contract, and how to begin."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ntbench.cli.app import app, console
from ntbench.cli.options import Plugins


@app.command("list")
def list_all(plugin: Plugins = None) -> None:
    """List the defenses, attacks, domains, metrics and suites, with one line each."""
    from ntbench.report.catalogue import catalogue

    for table in catalogue(plugin or []):
        console.print(table)


@app.command()
def check(
    method: Annotated[str, typer.Argument(help="A registered name, or a Python file with methods.")],
) -> None:
    """Examine whether defenses, attacks, domains and metrics keep the contract that each of their kind keeps."""
    from ntbench.checks import check_apart

    if not check_apart(method, console):
        raise typer.Exit(1)


class Kind(StrEnum):
    """What can be begun."""

    DEFENSE = "defense"
    ATTACK = "attack"
    DOMAIN = "domain"
    METRIC = "metric"


NEXT = {
    Kind.DEFENSE: "its numbers: ntbench run quick --plugin {file} --defense {name}",
    Kind.ATTACK: "its numbers: ntbench run quick --plugin {file} --attack {name}",
    Kind.DOMAIN: "a run on it: name {name} in a task of my_suite.toml, and ntbench run my_suite.toml --plugin {file}",
    Kind.METRIC: "its column: ntbench report runs/quick --plugin {file} --wide",
}
"""What to do with what was written."""


@app.command()
def new(
    kind: Annotated[Kind, typer.Argument(help="What to write.")],
    name: Annotated[str, typer.Argument(help="Its name in lower snake case.")],
    to: Annotated[Path, typer.Option(help="The folder to write to.")] = Path(),
) -> None:
    """Write a defense, an attack, a domain or a metric to begin with, and its test; both pass as they are."""
    from ntbench.checks.skeleton import begin

    method, test = begin(kind.value, name, to)
    console.print(f"wrote {method} and {test}", highlight=False, soft_wrap=True)
    console.print(f"next: ntbench check {method}, pytest {test}", highlight=False, soft_wrap=True)
    console.print(NEXT[kind].format(file=method, name=name), highlight=False, soft_wrap=True)
