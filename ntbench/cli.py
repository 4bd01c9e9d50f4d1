"""The command line; it imports nothing heavy before a command needs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from ntbench import __version__
from ntbench.errors import UserError

console = Console()


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
    help="""Measure what it really costs to attack a non-transferable model, compared with training from scratch.

    Start with **ntbench run quick**: it trains, protects, attacks and reports on data that come with the installation.
    Then **ntbench list** shows what can be combined, and **ntbench check my_defense.py** examines a defense of yours.
    """,
)
board = typer.Typer(no_args_is_help=True, help="Check and render the published rows in a `leaderboard` folder.")
app.add_typer(board, name="leaderboard")

Run = Annotated[Path, typer.Argument(help="The folder of a run, for example runs/quick.")]
Plugins = Annotated[
    list[str] | None, typer.Option("--plugin", metavar="FILE", help="A Python file with methods. Repeatable.")
]
Selection = Annotated[
    Literal["val", "oracle"],
    typer.Option(help="How the attacker chooses among attacks: `val` on validation data, `oracle` on test data."),
]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ntbench {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="A suite's name (see `ntbench list`) or a TOML file.")],
    defense: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Run this row and the controls only. Repeatable; any registered name."),
    ] = None,
    plugin: Plugins = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.  [default: runs/SUITE]")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes, one torch thread each.")] = os.cpu_count() or 1,
    device: Annotated[str, typer.Option(help="A torch device such as cpu or cuda.")] = "cpu",
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="Run this seed instead of the suite's. Repeatable.")
    ] = None,
    dask: Annotated[str, typer.Option(metavar="ADDRESS", help="Run on the Dask cluster of this scheduler.")] = "",
    selection: Selection = "val",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed cells again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count cells and estimate the time only.")] = False,
) -> None:
    """Run a suite, or what is left of it, then show its leaderboard and write its report.

    Everything finished is kept in the run's folder at once: the same command goes on after an interruption, and
    computes nothing twice.
    """
    from ntbench.session import Request, Session

    request = Request(
        suite=suite,
        defenses=tuple(defense or ()),
        plugins=tuple(plugin or ()),
        seeds=tuple(dict.fromkeys(seed or ())),
    )
    session = Session(out or Path("runs") / Path(suite).stem, console)
    if dry_run:
        session.estimate(request, jobs, device)
        return
    try:
        session.run(request, jobs, device, dask, retry_failed)
    except KeyboardInterrupt:
        session.say_where_it_stands()
        sys.stdout.flush()
        os._exit(130)  # workers are daemons of joblib; waiting for them would finish their cells first
    session.show(selection)


@app.command("list")
def list_all(plugin: Plugins = None) -> None:
    """List the defenses, attacks, domains and suites, with one line each."""
    from ntbench.catalogue import catalogue

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


@app.command()
def report(folder: Run, selection: Selection = "val") -> None:
    """Write tables, figures and one self-contained HTML page from what a run has finished."""
    from ntbench.session import open_run

    session = open_run(folder, console)
    session.report(selection)
    session.show(selection)


@app.command()
def publish(
    folder: Run,
    to: Annotated[Path, typer.Option(help="The leaderboard folder.")] = Path("leaderboard"),
) -> None:
    """Write a run's rows into a leaderboard folder, one JSON file per defense and task."""
    from ntbench.leaderboard.schema import publish as write_rows
    from ntbench.session import open_run

    session = open_run(folder, console)
    for path in write_rows(session.results(), session.suite, to / "results"):
        console.print(str(path), highlight=False)


@board.command()
def validate(
    folder: Annotated[Path, typer.Argument(help="The leaderboard folder.")] = Path("leaderboard"),
) -> None:
    """Check the schema, the keys and the arithmetic of every published row."""
    from ntbench.leaderboard.schema import validate as problems

    found = problems(folder / "results")
    for problem in found:
        console.print(problem, style="red", markup=False, highlight=False)
    if found:
        raise typer.Exit(1)
    console.print(f"every published row in {folder} is sound")


@board.command()
def render(
    folder: Annotated[Path, typer.Argument(help="The leaderboard folder.")] = Path("leaderboard"),
) -> None:
    """Render the published rows as the folder's README.md."""
    from ntbench.leaderboard.render import render as markdown

    (folder / "README.md").write_text(markdown(folder / "results"), encoding="utf-8")
    console.print(f"wrote {folder / 'README.md'}")
