"""Commands about methods: what there is, and whether one keeps the contract."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ntbench.cli.app import app, console
from ntbench.cli.options import Plugins


@app.command("list")
def list_all(plugin: Plugins = None) -> None:
    """List the defenses, attacks, domains and suites, with one line each."""
    from ntbench.report.catalogue import catalogue

    for table in catalogue(plugin or []):
        console.print(table)


@app.command()
def check(
    method: Annotated[str, typer.Argument(help="A registered name, or the Python file of a method.")],
) -> None:
    """Examine whether a defense or attack keeps the contract that every method keeps."""
    from ntbench.checks import check_apart

    if not check_apart(method, console):
        raise typer.Exit(1)


class Kind(StrEnum):
    """What can be begun."""

    DEFENSE = "defense"
    ATTACK = "attack"


@app.command()
def new(
    kind: Annotated[Kind, typer.Argument(help="What to write.")],
    name: Annotated[str, typer.Argument(help="Its name in lower snake case.")],
    to: Annotated[Path, typer.Option(help="The folder to write to.")] = Path(),
) -> None:
    """Write a defense or an attack to begin with, and its test; both pass as they are."""
    from ntbench.checks.skeleton import begin

    method, test = begin(kind.value, name, to)
    console.print(f"wrote {method} and {test}", highlight=False, soft_wrap=True)
    console.print(f"next: ntbench check {method}, pytest {test}", highlight=False, soft_wrap=True)
    console.print(
        f"its numbers: ntbench run quick --plugin {method} --{kind.value} {name}", highlight=False, soft_wrap=True
    )
