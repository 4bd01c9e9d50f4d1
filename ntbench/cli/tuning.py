"""The command that tunes a defense as a suite would: trials on data of its own, within the limit on source drop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ntbench.cli.app import app, console
from ntbench.cli.options import CORES, Dask, Device, Jobs, Out, Plugins, Tasks


@app.command()
def tune(
    defense: Annotated[str, typer.Argument(help="A row of the suite, or any registered defense.")],
    suite: Annotated[str, typer.Option(help="A suite's name or a TOML file: its tasks, network and limits.")],
    trials: Annotated[int, typer.Option(min=1, help="How many settings to try, the defaults first.")],
    plugin: Plugins = None,
    out: Out = None,
    jobs: Jobs = CORES,
    device: Device = "cpu",
    task: Tasks = None,
    dask: Dask = "",
) -> None:
    """Find hyper-parameters of a defense for each task of a suite, and print them for the suite's file.

    Each trial protects and is attacked within what the defense's own access grants; the least leak wins among those
    that keep the source. Trials stay in the run's folder: the same command goes on from there, and a suite with
    `tuned = N` takes them from there. The same trials come out the same.
    """
    from ntbench.engine.request import Request, Workers
    from ntbench.engine.session import Session

    request = Request(suite=suite, defenses=(defense,), plugins=tuple(plugin or ()), tasks=tuple(task or ()))
    session = Session(out or Path("runs") / Path(suite).stem, console)
    for (name, row), spec in session.tune(request, trials, Workers(jobs, device, dask)).items():
        assert spec.tuning is not None
        values = ", ".join(f"{field} = {json.dumps(spec.params[field])}" for field in spec.tuning.names)
        console.print(f"# {name}: {row}", markup=False, highlight=False)
        console.print(f"params = {{ {values} }}", markup=False, highlight=False, soft_wrap=True)
