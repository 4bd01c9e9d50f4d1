"""Commands about methods: what there is, and whether one keeps the contract."""

from __future__ import annotations

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
