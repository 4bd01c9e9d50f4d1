"""Commands on zoos: gather the releases of a suite, and attack all of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ntbench.cli.app import app, console
from ntbench.cli.options import CORES, Device, Jobs, Plugins, Seed, Seeds, Tasks, asked_seeds
from ntbench.errors import UserError

if TYPE_CHECKING:
    from ntbench.engine.zoo import Zoo
    from ntbench.suite import Suite
    from ntbench.types import Result

Board = Annotated[Path, typer.Option(metavar="DIR", help="A leaderboard folder, or the folder of a run.")]


@app.command()
def zoo(
    origin: Annotated[str, typer.Argument(metavar="RUN_OR_SUITE", help="The folder of a run, or a suite.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the zoo.")],
    board: Annotated[Path, typer.Option(metavar="DIR", help="The leaderboard to check against.")] = Path("leaderboard"),
    plugin: Plugins = None,
    jobs: Jobs = CORES,
    device: Device = "cpu",
    seed: Seed = None,
    seeds: Seeds = 0,
    task: Tasks = None,
) -> None:
    """Gather all releases of a suite with their clean models and cards, copied from a run or made from their recipes.

    The same command goes on after an interruption; what matches its card is kept. Exits with 1 where a release is not
    the published one.
    """
    from ntbench.engine.request import Request, Workers
    from ntbench.engine.session import Session, open_run
    from ntbench.engine.zoo import build
    from ntbench.registry import registry

    session, workers = Session(out, console), Workers(jobs, device)
    if Path(origin).is_dir():
        if seed or seeds or task:
            raise UserError("--seed, --seeds and --task choose of a suite; a run is copied as it is")
        for file in plugin or []:
            registry.load_plugin(file)
        run = open_run(Path(origin), console)
        made = build(session, run.suite, (result.cell for result in run.results()), workers, run.store)
    else:
        asked = asked_seeds(seed, seeds)
        request = Request(suite=origin, plugins=tuple(plugin or ()), seeds=asked, tasks=tuple(task or ()))
        made = build(session, *session.planned(request, workers), workers)
    console.print(f"{len(made.releases)} releases of {made.suite.protocol} in {out}", highlight=False, soft_wrap=True)
    _check(made, board)


@app.command("attack-zoo")
def attack_zoo(
    attack: Annotated[str, typer.Argument(help="The Python file of an attack, or the name of a registered one.")],
    zoo: Annotated[Path, typer.Option(metavar="DIR", help="The folder of a zoo; results are kept there.")],
    board: Board = Path("leaderboard"),
    plugin: Plugins = None,
    jobs: Jobs = CORES,
    device: Device = "cpu",
) -> None:
    """Run an attack on every release of a zoo and on the baselines, at the board's budgets, and tell what it adds.

    It stands beside the attacks of a finished board, and those that were run on the zoo before. The same command goes
    on after an interruption, and computes nothing twice; nothing is protected again. Exits with 1 where runs failed.
    """
    from ntbench.engine.request import Request, Workers
    from ntbench.engine.session import Session
    from ntbench.engine.told import failures
    from ntbench.engine.zoo import attack as run
    from ntbench.engine.zoo import read_zoo
    from ntbench.measure.added import added_table
    from ntbench.report.added import added

    kept = read_zoo(zoo)
    files, names = _attacks(attack, plugin or [])
    session = Session(zoo, console)
    earlier = list(session.results()) if session.held() else []
    request = Request(suite=kept.suite, attacks=names, plugins=files)
    results = run(session, kept, request, Workers(jobs, device))
    keys = {result.cell.key for result in results}
    others = _joined(_published(board, kept.suite), [r for r in earlier if r.cell.key not in keys])
    table = added_table(others, results, kept.suite)
    for part in added(table, ", ".join(names)):
        console.print(part)
    table.to_csv(zoo / f"added-{'-'.join(names)}.csv", index=False)
    if failed := failures(results):
        console.print(failed, style="red", markup=False, highlight=False)
        raise typer.Exit(1)


def _attacks(attack: str, plugins: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the files of plug-ins, and the names of the attacks that are asked for."""
    from ntbench.engine.foreign import open_door
    from ntbench.registry import registry

    if not attack.endswith(".py"):
        return tuple(plugins), (attack,)
    open_door()
    found = tuple(cls.name for cls in registry.load_plugin(attack) if cls.kind == "attack")
    if not found:
        raise UserError(f"{attack!r} holds no attack; derive one from Attack and register it")
    return (*plugins, attack), found


def _check(made: Zoo, board: Path) -> None:
    from ntbench.leaderboard.published import Board as Rows
    from ntbench.leaderboard.releases import known, release_differences
    from ntbench.leaderboard.schema import SUITE

    folder = board / "results" / made.suite.name
    rows = Rows.read(folder) if (folder / SUITE).exists() else None
    number = known(made.releases, rows) if rows else 0
    differences = list(release_differences(made.releases, rows)) if rows else []
    for line in differences:
        console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{number} of {len(made.releases)} are published in {board}", highlight=False, soft_wrap=True)
    if differences:
        raise typer.Exit(1)
    if number:
        console.print("all of these are as published", style="green", highlight=False)


def _published(board: Path, suite: Suite) -> list[Result]:
    """Return the results of a run's folder, or of a suite's board below a leaderboard; none where it has none."""
    from ntbench.engine.session import open_run
    from ntbench.leaderboard.published import Board as Rows
    from ntbench.leaderboard.schema import SUITE

    if (board / "manifest.json").exists():
        return list(open_run(board, console).results())
    folder = board / "results" / suite.name
    if (folder / SUITE).exists():
        held: list[Result] = Rows.read(folder).results
        return held
    console.print(f"{board} holds no board of {suite.name}: the attack stands alone", highlight=False, soft_wrap=True)
    return []


def _joined(board: list[Result], earlier: list[Result]) -> list[Result]:
    """Return the results of a board and of attacks that ran on the zoo before, each place of the tables once."""
    return list({result.cell.coordinates: result for result in [*board, *earlier]}.values())
