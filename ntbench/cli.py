"""The command line; it imports nothing heavy before a command needs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ntbench import __version__
from ntbench.errors import UserError

if TYPE_CHECKING:
    from ntbench.engine.session import Session

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
    help="""Measure what a non-transferable model still adds for an attacker, compared with training from scratch.

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
Seed = Annotated[list[int] | None, typer.Option(min=0, help="Run this seed instead of the suite's. Repeatable.")]
Seeds = Annotated[
    int, typer.Option(min=0, help="Run so many seeds, 0 and up; five give verdicts.  [default: the suite's]")
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Run this task of the suite only, as SOURCE-TARGET. Repeatable."),
]
Horizon = Annotated[
    float,
    typer.Option(
        min=0,
        help="Largest budget of an attack, in units of T90: the steps that training from scratch takes to 90% of its "
        "plateau.  [default: the suite's]",
    ),
]
Dask = Annotated[str, typer.Option(metavar="ADDRESS", help="Run on the Dask cluster of this scheduler.")]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Run failed cells again.")]
Wide = Annotated[bool, typer.Option("--wide", help="Show every column, the other tracks and the papers' claims too.")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Count cells and estimate the time only.")]
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
    seed: Seed = None,
    seeds: Seeds = 0,
    task: Tasks = None,
    horizon: Horizon = 0,
    dask: Dask = "",
    retry_failed: Retry = False,
    dry_run: Dry = False,
    wide: Wide = False,
) -> None:
    """Run a suite, or what is left of it, then show its leaderboard and write its report.

    Everything finished is kept in the run's folder at once: the same command goes on after an interruption, and
    computes nothing twice. A folder holds one board: what you ask for later joins it. Exits with 1 where cells failed.
    """
    from ntbench.engine.session import Request, Session, Workers

    if seed and seeds:
        raise UserError("--seed and --seeds are both given; name seeds one by one, or say how many")
    request = Request(
        suite=suite,
        defenses=tuple(defense or ()),
        plugins=tuple(plugin or ()),
        seeds=tuple(dict.fromkeys(seed or range(seeds))),
        tasks=tuple(task or ()),
        horizon=horizon,
    )
    name = Path(suite).stem + (f"-horizon{horizon:g}" if horizon else "")
    session = Session(out or Path("runs") / name, console)
    workers = Workers(jobs, device, dask)
    if dry_run:
        session.estimate(request, workers)
        return
    try:
        session.run(request, workers, retry_failed)
    except KeyboardInterrupt:
        session.say_where_it_stands()
        sys.stdout.flush()
        os._exit(130)  # workers are daemons of joblib; waiting for them would finish their cells first
    _show(session, wide)


def _show(session: Session, wide: bool, anew: bool = False) -> None:
    """Print the board and where the page lies, which is written anew where it is stale; exit with 1 on failed cells."""
    from ntbench.measure.board import leaderboard_table
    from ntbench.report.page import write_report
    from ntbench.report.sentences import sentence
    from ntbench.report.terminal import details, headlines

    results, suite = session.results(), session.suite
    board = leaderboard_table(results, suite)
    for shown in [*headlines(board, suite), *(details(board, suite) if wide else [])]:
        console.print(shown)
    for task in suite.tasks:
        console.print(sentence(board, task), style="bold", markup=False, highlight=False)
    if anew or not session.page_is_current():
        with console.status("writing the report"):
            write_report(session.folder, results, suite)
        session.mark_page()
    console.print(f"report: {session.page}", highlight=False)
    if failed := session.failures(results):
        console.print(failed, style="red", markup=False, highlight=False)
        raise typer.Exit(1)


@app.command()
def calibrate(
    suite: Annotated[str, typer.Argument(help="A suite's name or a TOML file.")],
    out: Out = None,
    jobs: Jobs = CORES,
    device: Device = "cpu",
    task: Tasks = None,
) -> None:
    """Measure T90 and plateau of training from scratch, on seeds of their own, and print them for the suite's file.

    T90 is the number of steps to 90% of the plateau, the unit of all budgets. A run measures by itself what its suite
    lacks; frozen in the file, the numbers are the same for everybody.
    """
    from ntbench.engine.session import Request, Session, Workers

    request = Request(suite=suite, tasks=tuple(task or ()))
    session = Session(out or Path("runs") / f"{Path(suite).stem}-calibration", console)
    for measured in session.measured(request, Workers(jobs, device)).tasks:
        console.print(f"# {measured.title}", markup=False, highlight=False)
        lines = ", ".join(
            f"{{ samples = {at.samples}, t90 = {at.t90}, plateau = {at.plateau} }}" for at in measured.levels
        )
        console.print(f"levels = [{lines}]", markup=False, highlight=False, soft_wrap=True)


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
def report(folder: Run, wide: Wide = False) -> None:
    """Write tables, figures and one self-contained HTML page from what a run has finished."""
    from ntbench.engine.session import open_run

    _show(open_run(folder, console), wide, anew=True)


@app.command()
def publish(
    folder: Run,
    to: Annotated[Path, typer.Option(help="The leaderboard folder.")] = Path("leaderboard"),
) -> None:
    """Write a run's rows into a leaderboard folder, one JSON file per defense and task."""
    from ntbench.engine.session import open_run
    from ntbench.leaderboard.publish import publish as write_rows

    session = open_run(folder, console)
    for path in write_rows(session.results(), session.suite, to / "results"):
        console.print(str(path), highlight=False)


@board.command()
def validate(
    folder: Annotated[Path, typer.Argument(help="The leaderboard folder.")] = Path("leaderboard"),
) -> None:
    """Check the schema, the keys and the arithmetic of every published row."""
    from ntbench.leaderboard.validate import validate as problems

    found = problems(folder / "results")
    for problem in found:
        console.print(problem, style="red", markup=False, highlight=False)
    if found:
        raise typer.Exit(1)
    console.print(f"every published row in {folder} is sound")


@board.command()
def verify(
    place: Annotated[Path, typer.Argument(help="A published file, or a folder of them.")] = Path("leaderboard"),
    key: Annotated[str, typer.Option(help="Recompute the cell of this key.  [default: one by chance]")] = "",
    seed: Annotated[int | None, typer.Option(min=0, help="Choose by this seed, so that the choice repeats.")] = None,
) -> None:
    """Recompute a published cell from its recipe, and mark its row as verified where it matches bit for bit."""
    from ntbench.engine.alone import run_alone
    from ntbench.leaderboard.verify import verify as recompute

    with console.status("computing it again"):
        check = recompute(place, run_alone, key, seed)
    console.print(str(check), style="green" if check.matches else "red", markup=False, highlight=False)
    if not check.matches:
        raise typer.Exit(1)


@board.command()
def render(
    folder: Annotated[Path, typer.Argument(help="The leaderboard folder.")] = Path("leaderboard"),
) -> None:
    """Render the published rows as the folder's README.md."""
    from ntbench.leaderboard.render import render as markdown

    (folder / "README.md").write_text(markdown(folder / "results"), encoding="utf-8")
    console.print(f"wrote {folder / 'README.md'}")
