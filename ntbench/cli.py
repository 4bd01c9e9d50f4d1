"""The command line; it imports nothing heavy before a command needs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from ntbench import __version__
from ntbench.errors import UserError

if TYPE_CHECKING:
    from ntbench.engine.session import Request

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
Out = Annotated[Path | None, typer.Option(help="The run's folder.  [default: below runs/]")]
Jobs = Annotated[int, typer.Option(min=1, help="Worker processes, one torch thread each.")]
Device = Annotated[str, typer.Option(help="A torch device such as cpu or cuda.")]
Together = Annotated[
    int,
    typer.Option(
        min=0,
        help="Train so many small models at once in one process; pays on an accelerator. "
        "0 chooses: 1 on the CPU, 16 elsewhere.",
    ),
]
Seeds = Annotated[list[int] | None, typer.Option(min=0, help="Run this seed instead of the suite's. Repeatable.")]
Tasks = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Run this task of the suite only, as SOURCE-TARGET. Repeatable."),
]
Dask = Annotated[str, typer.Option(metavar="ADDRESS", help="Run on the Dask cluster of this scheduler.")]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Run failed cells again.")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Count cells and estimate the time only.")]
Selection = Annotated[
    Literal["last", "val", "oracle"],
    typer.Option(
        help="How the attacker chooses: `val` steps and attacks on validation data, `last` attacks alone, "
        "`oracle` both on test data."
    ),
]
CORES = os.cpu_count() or 1


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
    out: Out = None,
    jobs: Jobs = CORES,
    device: Device = "cpu",
    together: Together = 0,
    seed: Seeds = None,
    task: Tasks = None,
    dask: Dask = "",
    selection: Selection = "val",
    retry_failed: Retry = False,
    dry_run: Dry = False,
) -> None:
    """Run a suite, or what is left of it, then show its leaderboard and write its report.

    Everything finished is kept in the run's folder at once: the same command goes on after an interruption, and
    computes nothing twice.
    """
    request = _request(suite, defense, plugin, seed, task)
    _execute(
        request, out or Path("runs") / Path(suite).stem, jobs, device, together, dask, selection, retry_failed, dry_run
    )


@app.command()
def attack(
    defense: Annotated[str, typer.Argument(help="A row of the suite, or any registered defense.")],
    budget: Annotated[int, typer.Option(min=1, help="Optimizer steps that the search may spend on one cell.")] = 640,
    suite: Annotated[
        str, typer.Option(help="The suite whose tasks, network, sample ratios and seeds count.")
    ] = "quick",
    plugin: Plugins = None,
    out: Out = None,
    jobs: Jobs = CORES,
    device: Device = "cpu",
    together: Together = 0,
    seed: Seeds = None,
    task: Tasks = None,
    dask: Dask = "",
    selection: Selection = "val",
    retry_failed: Retry = False,
    dry_run: Dry = False,
) -> None:
    """Search for the strongest attack on one defense, and as hard for the best training from scratch.

    Every sample ratio and seed gets its own search, which chooses on the attacker's validation data. What it chose
    stands in the column `choice` of results.csv. The same command goes on after an interruption.
    """
    request = _request(suite, [defense], plugin, seed, task, search=budget)
    folder = out or Path("runs") / f"{Path(suite).stem}-{defense}-{budget}"
    _execute(request, folder, jobs, device, together, dask, selection, retry_failed, dry_run)


def _request(
    suite: str, defense: list[str] | None, plugin: Plugins, seed: Seeds, task: Tasks, search: int = 0
) -> Request:
    from ntbench.engine.session import Request

    return Request(
        suite=suite,
        defenses=tuple(defense or ()),
        plugins=tuple(plugin or ()),
        seeds=tuple(dict.fromkeys(seed or ())),
        tasks=tuple(task or ()),
        search=search,
    )


def _execute(
    request: Request,
    folder: Path,
    jobs: int,
    device: str,
    together: int,
    dask: str,
    selection: str,
    retry_failed: bool,
    dry_run: bool,
) -> None:
    from ntbench.engine.session import Session

    session = Session(folder, console)
    if dry_run:
        session.estimate(request, jobs, device)
        return
    try:
        session.run(request, jobs, device, dask, retry_failed, together)
    except KeyboardInterrupt:
        session.say_where_it_stands()
        sys.stdout.flush()
        os._exit(130)  # workers are daemons of joblib; waiting for them would finish their cells first
    session.show(selection)


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


@app.command()
def report(folder: Run, selection: Selection = "val") -> None:
    """Write tables, figures and one self-contained HTML page from what a run has finished."""
    from ntbench.engine.session import open_run

    session = open_run(folder, console)
    session.report(selection)
    session.show(selection)


@app.command()
def publish(
    folder: Run,
    to: Annotated[Path, typer.Option(help="The leaderboard folder.")] = Path("leaderboard"),
) -> None:
    """Write a run's rows into a leaderboard folder, one JSON file per defense and task."""
    from ntbench.engine.session import open_run
    from ntbench.leaderboard.schema import publish as write_rows

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
