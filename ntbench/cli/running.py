"""Commands that compute: run a suite, calibrate it, report on it, publish its rows."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ntbench.cli.app import app, console
from ntbench.cli.options import (
    CORES,
    Dask,
    Device,
    Dry,
    Horizon,
    Jobs,
    Lanes,
    Out,
    Plugins,
    Retry,
    Run,
    Sandbox,
    Seed,
    Seeds,
    Tasks,
    Wide,
    asked_seeds,
)

if TYPE_CHECKING:
    from ntbench.engine.request import Request, Workers
    from ntbench.engine.session import Session


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="A suite's name (see `ntbench list`) or a TOML file.")],
    defense: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Run this row and the controls only. Repeatable; any registered name."),
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Run this attack of the suite only, by label or registered name; one that it lacks joins it. "
            "Repeatable.",
        ),
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
    sandbox: Sandbox = False,
    lanes: Lanes = None,
    retry_failed: Retry = False,
    dry_run: Dry = False,
    wide: Wide = False,
) -> None:
    """Run a suite, or what is left of it, then show its leaderboard and write its report.

    Everything finished is kept in the run's folder at once: the same command goes on after an interruption, and
    computes nothing twice. A folder holds one board: what you ask for later joins it. Exits with 1 where cells failed.
    """
    from ntbench.engine.request import Request, Workers

    request = Request(
        suite=suite,
        defenses=tuple(defense or ()),
        attacks=tuple(attack or ()),
        plugins=tuple(plugin or ()),
        seeds=asked_seeds(seed, seeds),
        tasks=tuple(task or ()),
        horizon=horizon,
    )
    name = Path(suite).stem + (f"-horizon{horizon:g}" if horizon else "")
    workers = Workers(jobs, device, dask, sandbox, lanes or 0)
    compute(request, out or Path("runs") / name, workers, retry_failed, dry_run, wide)


def compute(request: Request, out: Path, workers: Workers, retry_failed: bool, dry_run: bool, wide: bool) -> None:
    """Run what is asked for, or what is left of it, then show the board; a dry run says how much that is."""
    from ntbench.engine.session import Session

    session = Session(out, console, request.plugins)
    if workers.sandbox:
        from ntbench.engine.sandbox import confine

        confine()
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
    told = None if wide or anew else session.told()
    board, failed = (told.board, told.failures) if told else _made(session, wide, anew)
    console.print(Text.from_ansi(board))
    console.print(f"report: {session.page}", highlight=False)
    if failed:
        console.print(failed, style="red", markup=False, highlight=False)
        raise typer.Exit(1)


def _made(session: Session, wide: bool, anew: bool) -> tuple[str, str]:
    """Return the board as text in colours and the cells that failed, and see that the page is current."""
    from ntbench.engine.request import registered
    from ntbench.engine.told import failures
    from ntbench.measure.board import leaderboard_table
    from ntbench.measure.reproduced import Reproduction
    from ntbench.measure.standing import Study
    from ntbench.measure.tables import coverage_table
    from ntbench.report.metrics import problems
    from ntbench.report.page import write_report
    from ntbench.report.sentences import absent, sentence
    from ntbench.report.terminal import details, headlines, in_colours, repeated
    from ntbench.report.words import worded

    results, suite = session.results(), session.suite
    study, failed = Study(results, suite), failures(results)
    brought = registered(study, session.plugins)
    board = brought.beside(leaderboard_table(study, suite))
    told = suite.tasks if any(entry.protocol is None for entry in suite.attacks) else ()
    sentences = [Text(sentence(board, task), style="bold") for task in told]
    coverage = coverage_table(results)
    lacking = {task.title: absent(coverage, task) for task in suite.tasks}
    sentences += [Text(f"{title}: {said}.", style="yellow") for title, said in lacking.items() if said]
    again = repeated(Reproduction.of(results, suite), suite)
    sentences += [Text(problem, style="yellow") for problem in problems(board, brought.metrics)]
    shown = worded(in_colours([*headlines(board, suite), *again, *sentences]), suite.objective.name)
    if anew or not session.page_is_current():
        with console.status("writing the report"):
            write_report(session.folder, results, suite, brought)
        session.mark_page(shown, failed)
    everything = [*headlines(board, suite), *details(board, suite, brought=brought.metrics), *sentences]
    return worded(in_colours(everything), suite.objective.name) if wide else shown, failed


@app.command()
def calibrate(
    suite: Annotated[str, typer.Argument(help="A suite's name or a TOML file.")],
    plugin: Plugins = None,
    out: Out = None,
    jobs: Jobs = CORES,
    device: Device = "cpu",
    task: Tasks = None,
) -> None:
    """Measure T90 and plateau of training from scratch, on seeds of their own, and print them for the suite's file.

    T90 is the number of steps to 90% of the plateau, the unit of all budgets. A run measures by itself what its suite
    lacks; frozen in the file, the numbers are the same for everybody.
    """
    from ntbench.engine.request import Request, Workers
    from ntbench.engine.session import Session

    request = Request(suite=suite, plugins=tuple(plugin or ()), tasks=tuple(task or ()))
    session = Session(out or Path("runs") / f"{Path(suite).stem}-calibration", console)
    found = session.measured(request, Workers(jobs, device))
    for domain, best in found.objective.params.get("reference", {}).items():
        console.print(f"objective.params.reference.{domain} = {best:g}", markup=False, highlight=False)
    for measured in found.tasks:
        console.print(f"# {measured.title}", markup=False, highlight=False)
        lines = ", ".join(
            f"{{ samples = {at.samples}, t90 = {at.t90}, plateau = {at.plateau} }}" for at in measured.levels
        )
        console.print(f"levels = [{lines}]", markup=False, highlight=False, soft_wrap=True)


@app.command()
def report(folder: Run, plugin: Plugins = None, wide: Wide = False) -> None:
    """Write tables, figures and one self-contained HTML page from what a run has finished.

    Metrics of plug-ins and of other packages become columns of leaderboard.csv, of the page and of `--wide`.
    """
    from ntbench.engine.session import open_run

    _show(open_run(folder, console, plugin or []), wide, anew=True)


@app.command()
def publish(
    folder: Run,
    to: Annotated[Path, typer.Option(help="The leaderboard folder.")] = Path("leaderboard"),
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Publish a run of a longer horizon, more seeds or other attacks beside its board."
        ),
    ] = False,
) -> None:
    """Write a run's rows into a leaderboard folder, one JSON file per defense and task.

    Runs by the papers' own protocols are no rows; they go into one file a suite, whether or not all of them have run.
    """
    from ntbench.engine.session import open_run
    from ntbench.leaderboard.checks import publish as write_check
    from ntbench.leaderboard.publish import publish as write_rows
    from ntbench.leaderboard.reproductions import publish as write_reproductions
    from ntbench.types import Budget

    session = open_run(folder, console)
    results, suite = session.results(), session.suite
    paths = write_reproductions(results, suite, to / "reproduced")
    if not paths or any(entry.protocol is None for entry in suite.attacks):
        plain = [result for result in results if isinstance(result.cell.budget, Budget)]
        paths += write_check(plain, suite, to) if check else write_rows(plain, suite, to / "results")
    for path in paths:
        console.print(str(path), highlight=False)
