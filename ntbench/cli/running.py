"""Commands that compute: run a suite, calibrate it, report on it, publish its rows."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ntbench.cli.app import app, console
from ntbench.cli.options import (
    CORES,
    Dask,
    Device,
    Dry,
    Horizon,
    Jobs,
    Out,
    Plugins,
    Retry,
    Run,
    Seed,
    Seeds,
    Tasks,
    Wide,
)
from ntbench.errors import UserError
from ntbench.types import Budget

if TYPE_CHECKING:
    from ntbench.engine.session import Session


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
    from ntbench.measure.reproduced import Reproduction
    from ntbench.report.page import write_report
    from ntbench.report.sentences import sentence
    from ntbench.report.terminal import details, headlines, repeated

    results, suite = session.results(), session.suite
    board = leaderboard_table(results, suite)
    for shown in [*headlines(board, suite), *(details(board, suite) if wide else [])]:
        console.print(shown)
    for shown in repeated(Reproduction.of(results, suite), suite):
        console.print(shown)
    if any(entry.protocol is None for entry in suite.attacks):
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
    """Write a run's rows into a leaderboard folder, one JSON file per defense and task.

    Runs by the papers' own protocols are no rows; they go into one file a suite, whether or not all of them have run.
    """
    from ntbench.engine.session import open_run
    from ntbench.leaderboard.publish import publish as write_rows
    from ntbench.leaderboard.reproductions import publish as write_reproductions

    session = open_run(folder, console)
    results, suite = session.results(), session.suite
    paths = write_reproductions(results, suite, to / "reproduced")
    if not paths or any(entry.protocol is None for entry in suite.attacks):
        plain = [result for result in results if isinstance(result.cell.budget, Budget)]
        paths += write_rows(plain, suite, to / "results")
    for path in paths:
        console.print(str(path), highlight=False)
