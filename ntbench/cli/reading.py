"""Commands that read runs: one row, one number's way, two runs beside each other."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ntbench.cli.app import app, console
from ntbench.cli.options import Plugins, Run

if TYPE_CHECKING:
    import pandas as pd

    from ntbench.engine.session import Session
    from ntbench.types import Columns, Result


@app.command()
def show(
    folder: Run,
    row: Annotated[str, typer.Option(metavar="NAME", help="The row, as it stands in the tables.")],
) -> None:
    """Show everything that is known of one row, and which cells its numbers come from."""
    from ntbench.report.portrait import portrait

    session, _, board, choices = _read(folder)
    for table in portrait(board, choices, session.suite, row):
        console.print(table)


@app.command()
def explain(
    folder: Run,
    key: Annotated[
        str, typer.Argument(help="A cell's key or its beginning; `ntbench show` and results.csv have them.")
    ],
    again: Annotated[
        bool, typer.Option("--again", help="Compute it again on the CPU and compare, bit for bit.")
    ] = False,
    plugin: Plugins = None,
) -> None:
    """Tell one number's whole way: recipe, release, scores, the rows that it decides, and how to compute it again."""
    from ntbench.report.way import found, way

    _, results, _, choices = _read(folder)
    result = found(results, key)
    for part in way(result, choices):
        console.print(part)
    if again:
        _recompute(result, plugin or [])
        return
    command = shlex.join(["ntbench", "explain", str(folder), result.cell.key, "--again"])
    console.print(f"compute it again: {command}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(help="The folder of a run.")],
    after: Annotated[Path, typer.Argument(help="The folder of the run that is held against it.")],
) -> None:
    """Say what differs between two runs, what moved, and whether it is noise.

    A number moved where the interval of its change leaves 0 out. It is taken as that of independent runs, so that it is
    the cautious one for runs that share seeds and images.
    """
    from ntbench.report.comparison import comparison

    (one, first, board, _), (other, second, against, _) = _read(before), _read(after)
    for part in comparison((first, one.suite, board), (second, other.suite, against)):
        console.print(part)


def _read(folder: Path) -> tuple[Session, Columns, pd.DataFrame, pd.DataFrame]:
    """Return a run with its leaderboard, and with its choices by key."""
    from ntbench.engine.session import open_run
    from ntbench.measure.board import leaderboard_table
    from ntbench.measure.choices import choices_table, keyed
    from ntbench.measure.standing import Study

    session = open_run(folder, console)
    results = session.results()
    study = Study(results, session.suite)
    choices = keyed(choices_table(study, session.suite), results)
    return session, results, leaderboard_table(study, session.suite), choices


def _recompute(result: Result, plugins: list[str]) -> None:
    from ntbench.engine.alone import run_alone
    from ntbench.measure.differences import cell_differences
    from ntbench.registry import registry
    from ntbench.report.words import worded

    for plugin in plugins:
        registry.load_plugin(plugin)
    with console.status("computing it again"):
        now = run_alone(result.cell)
    differences = [*cell_differences(result, now)]
    if now.trajectory.correct != result.trajectory.correct:
        differences.append(worded("other test images are right", result.cell.objective.name))
    if differences:
        console.print(f"differs: {'; '.join(differences)}", style="red", markup=False, highlight=False)
        raise typer.Exit(1)
    console.print("computed again: it matches bit for bit", style="green", highlight=False)
