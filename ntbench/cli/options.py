"""Arguments and options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ntbench.errors import UserError

Run = Annotated[Path, typer.Argument(help="The folder of a run, for example runs/quick.")]
Plugins = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="FILE", help="A Python file with methods, domains or metrics. Repeatable."),
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
Sandbox = Annotated[
    bool,
    typer.Option(
        "--sandbox",
        help="Hide the file system and the network from plug-ins and other packages, with bubblewrap.",
    ),
]
Lanes = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Cells alike but for seed, defense, rate and decay that train side by side as one stacked model: many "
        "times faster on an accelerator, not on a CPU. Their numbers are those of cells alone to rounding, not bit for "
        "bit, and the results say so.  [default: 1 on a CPU, 32 elsewhere]",
        show_default=False,
    ),
]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Run failed cells again.")]
Wide = Annotated[bool, typer.Option("--wide", help="Show every column, the other tracks and the papers' claims too.")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Count cells and estimate the time only.")]
CORES = os.cpu_count() or 1


def asked_seeds(seed: list[int] | None, seeds: int) -> tuple[int, ...]:
    """Return the seeds that are named, or so many; none where neither is asked for. Raises UserError on both."""
    if seed and seeds:
        raise UserError("--seed and --seeds are both given; name seeds one by one, or say how many")
    return tuple(dict.fromkeys(seed or range(seeds)))
