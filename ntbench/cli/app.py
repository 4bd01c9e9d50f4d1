"""The application: how mistakes are told, and what it says of itself."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from ntbench import __version__
from ntbench.errors import UserError

console = Console()
UNSAID = 120
"""The exit code where output could not be written, which is Python's own."""


class _Explaining(typer.core.TyperGroup):
    """Shows a UserError as one message without a traceback, and an interruption as what it is."""

    def invoke(self, ctx: Any) -> object:
        try:
            return super().invoke(ctx)
        except UserError as error:
            Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(2) from None


app = typer.Typer(
    name="ntbench",
    cls=_Explaining,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Measure what a non-transferable model still adds for an attacker, compared with training from scratch.

    Start with **ntbench run quick**: it trains, protects, attacks and reports on data that come with the installation.
    Then **ntbench list** shows what can be combined, and **ntbench check my_defense.py** examines a defense of yours.
    """,
)


def main() -> None:
    """Run the command line, and leave at once with its exit code.

    Everything is stored by then, and workers end as soon as this process is gone: waiting for them, and for the
    interpreter to take down what it imported, takes seconds and does nothing.
    """
    code = 0
    try:
        app()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or UNSAID
    os._exit(code)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ntbench {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass
