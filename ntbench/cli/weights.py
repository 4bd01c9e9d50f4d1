"""Commands on files of weights: attack a release that was made elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ntbench.cli.app import app, console
from ntbench.cli.options import CORES, Dask, Device, Dry, Horizon, Jobs, Out, Retry, Run, Wide
from ntbench.cli.running import compute
from ntbench.errors import UserError

if TYPE_CHECKING:
    from ntbench.suite import Suite

COUNTS, APART, MOST = 4, 3, 600
"""By default, how many sample counts there are at most, the factor between them, and the largest."""
ADAM = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
ATTACKS: list[dict[str, Any]] = [
    {"name": "finetune", "params": {"optimizer": "momentum"}, "grid": {"lr": [1e-4, 1e-3, 1e-2, 1e-1]}},
    {"name": "finetune", "params": {"optimizer": "adam"}, "grid": {"lr": ADAM}},
    {"name": "finetune", "label": "new head, ", "params": {"optimizer": "adam", "lr": 1e-3, "init": "reinit"}},
    {"name": "perturb", "label": "shrink and perturb, ", "params": {"optimizer": "adam"}, "grid": {"lr": ADAM[1:5]}},
    {"name": "redraw", "label": "redraw all but the first layers, ", "params": {"optimizer": "adam", "lr": 1e-3}},
]
"""Rates wide enough for small and large networks; labels go on with optimizer and rate."""
LIMITS = {"cell_seconds": 14400, "protect_seconds": 14400, "memory_mb": 16384}
Rgb = tuple[float, float, float]
OF_FILE: dict[str, Any] = {"metavar": "FILE", "exists": True, "dir_okay": False, "resolve_path": True}
"""What a file of weights is on the command line."""


@app.command()
def attack(
    files: Annotated[
        list[Path],
        typer.Argument(
            **OF_FILE,
            help="The released weights: one file, or several of the same defense, one a seed.",
        ),
    ],
    arch: Annotated[str, typer.Option(help="The timm architecture that the weights belong to.")],
    source: Annotated[str, typer.Option(metavar="DIR", help="Images DIR/CLASS/* of the task that the model keeps.")],
    target: Annotated[
        str,
        typer.Option(metavar="DIR", help="Images of the task that it should not be adapted to. A domain's name, too."),
    ],
    undefended: Annotated[
        list[Path] | None,
        typer.Option(
            **OF_FILE,
            help="The same model without protection, which a leak is a share of. Repeatable.",
        ),
    ] = None,
    public: Annotated[
        Path | None,
        typer.Option(
            **OF_FILE,
            help="Public weights, from which an attacker may start as well.",
        ),
    ] = None,
    mean: Annotated[
        Rgb | None,
        typer.Option(metavar="R G B", help="Of pixels in [0, 1] as the model expects them.  [default: timm's]"),
    ] = None,
    std: Annotated[Rgb | None, typer.Option(metavar="R G B", help="Likewise.  [default: timm's]")] = None,
    size: Annotated[int, typer.Option(min=8, max=512, help="Side of the images in pixels.")] = 64,
    arch_param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An argument of the architecture. Repeatable.")
    ] = None,
    source_accuracy: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="What the release reaches on the source; far below it, the run stops."),
    ] = None,
    samples: Annotated[
        list[int] | None,
        typer.Option(min=1, help="A number of labelled target samples; two or more.  [default: four, by the data]"),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=0,
            show_default=False,
            help="Attack with so many seeds; five give verdicts.  [default: 3, or one a file]",
        ),
    ] = 0,
    suite: Annotated[
        str, typer.Option(help="Take the attacks, their horizon and their limits from this suite.  [default: our own]")
    ] = "",
    horizon: Horizon = 0,
    out: Out = None,
    jobs: Jobs = CORES,
    device: Device = "cpu",
    dask: Dask = "",
    retry_failed: Retry = False,
    dry_run: Dry = False,
    wide: Wide = False,
) -> None:
    """Measure what released weights add for an attacker: a state dict on disk, and two folders of images.

    Files are safetensors or what torch saved without objects; nothing is ever unpickled. The target's images should be
    others than those that the weights were protected with.
    """
    from ntbench.engine.request import Request, Workers
    from ntbench.learn.preprocessing import sized

    own = {"arch": {"name": arch, "params": _params(arch_param or []), "mean": mean, "std": std}}
    rows = _rows(files, undefended or [], public, source_accuracy)
    parts = own | {"seeds": range(seeds or (len(files) if len(files) > 1 else 3)), "defenses": rows}
    composed = _composed(parts | {"tasks": [_task(_domain(source), _domain(target), size, samples or [])]}, suite)
    composed = composed.model_copy(update={"arch": sized(composed.arch, size)})
    request = Request(suite=composed, horizon=horizon)
    compute(request, out or Path("runs") / files[0].stem, Workers(jobs, device, dask), retry_failed, dry_run, wide)


@app.command()
def export(
    folder: Run,
    defense: Annotated[str, typer.Argument(help="A row of the run.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The safetensors file to write.")],
    seed: Annotated[int, typer.Option(min=0, help="The release of this seed.")] = 0,
    task: Annotated[str, typer.Option(metavar="NAME", help="Of this task, where the run has several.")] = "",
) -> None:
    """Write a release of a run as a safetensors file with its card: recipe, hashes and scores.

    `ntbench.load_release(FILE)` gives the model and the card; `ntbench attack FILE` attacks it like any other.
    """
    from ntbench.engine.export import export as write
    from ntbench.engine.session import open_run

    card = write(open_run(folder, console), defense, seed, out, task)
    console.print(f"{out}: {card['defense']}, seed {seed}, {card['arch']['name']}", highlight=False, markup=False)


def _composed(parts: dict[str, Any], like: str) -> Suite:
    """Return the suite of a release: its rows, network and task, under our attacks or those of another suite."""
    from pydantic import ValidationError

    from ntbench.suite import Suite, explained

    values = {"name": "attack", "version": 1, "summary": "released weights that came as files"} | _attacks(like)
    try:
        return Suite.model_validate(values | parts)
    except ValidationError as error:
        raise explained(error, "ntbench attack") from None


def _attacks(like: str) -> dict[str, Any]:
    from ntbench.suite import load_suite

    if not like:
        named = [entry | {"label": entry.get("label", "") + "{optimizer} {lr:g}"} for entry in ATTACKS]
        return {"attacks": named, "paper": {"attack": "momentum 0.001"}, "limits": LIMITS}
    held = load_suite(like)
    # Attacks on certain rows are meant for others than ours, those that keep a mask among them.
    kept = tuple(entry for entry in held.attacks if not entry.against)
    names = ("horizon", "scored", "source_share", "precision", "scoring", "limits")
    shared = {name: getattr(held, name) for name in names}
    return shared | {"attacks": kept, "paper": {"attack": kept[0].variants()[0][0] if kept else ""}}


def _rows(
    files: Sequence[Path], undefended: Sequence[Path], public: Path | None, source_accuracy: float | None
) -> list[dict[str, Any]]:
    release = {"label": "release", "release": tuple(map(str, files)), "undefended": tuple(map(str, undefended))}
    return [
        *([{"name": "none"}] if undefended else []),
        {"name": "scratch"},
        *([{"name": "public", "params": {"weights": str(public)}}] if public else []),
        release | {"source_accuracy": source_accuracy},
    ]


def _task(source: str, target: str, size: int, samples: Sequence[int]) -> dict[str, Any]:
    """Return the task; nobody defends here, so that attackers draw from all training images of the target."""
    counts = _counts(target, size, sorted(set(samples)))
    return {
        "source": source,
        "target": target,
        "image_size": size,
        "shared": True,
        "levels": [{"samples": count} for count in counts],
    }


def _counts(target: str, size: int, given: list[int]) -> list[int]:
    """Return how many labelled samples attackers have, as given or by the data; UserError on what nobody can have."""
    from ntbench.engine.session import cache_folder
    from ntbench.tasks.data import load_domain

    with console.status("reading the images"):
        domain = load_domain(target, size, cache_folder())
    if len(given) == 1:
        raise UserError(f"--samples {given[0]}: a curve needs two counts or more; give another --samples")
    if given and given[-1] > len(domain.train):
        raise UserError(f"--samples {given[-1]}: the target has {len(domain.train)} training images; give fewer")
    if given:
        return given
    most = min(MOST, len(domain.train))
    counts = [most // APART**k for k in range(COUNTS)]
    return sorted({count for count in counts if count >= domain.classes} | {most})


def _domain(place: str) -> str:
    from ntbench.domains import find

    folder = Path(place).expanduser()
    if folder.is_dir():
        return f"folder:{folder.resolve()}"
    if "/" in place:
        raise UserError(f"folder {place!r} does not exist; give a folder of images by class, or the name of a domain")
    try:
        find(place)
    except UserError as error:
        raise UserError(f"{place!r} is no folder here, and an {error}") from None
    return place


def _params(given: Sequence[str]) -> dict[str, Any]:
    wrong = next((text for text in given if "=" not in text), None)
    if wrong is not None:
        raise UserError(f"--arch-param {wrong!r}: write NAME=VALUE, for example patch_size=4")
    return {text.partition("=")[0]: _value(text.partition("=")[2]) for text in given}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
