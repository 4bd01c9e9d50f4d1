"""Commands about data: come by the files of a data set, and see what is read of a domain."""

from __future__ import annotations

from typing import Annotated

import typer

from ntbench.cli.app import app, console
from ntbench.cli.options import Plugins

data = typer.Typer(no_args_is_help=True, help="Get the files of data sets, and show what is read of them.")
app.add_typer(data, name="data")


@data.command()
def get(name: Annotated[str, typer.Argument(help="A domain of `ntbench list`.")]) -> None:
    """Download the files of a domain into NTBENCH_DATA where its licence allows it, or tell how to come by them."""
    from ntbench.domains._get import get as fetch

    with console.status(f"getting {name}"):
        told = fetch(name)
    console.print(told, highlight=False, markup=False, soft_wrap=True)


@data.command()
def show(
    name: Annotated[str, typer.Argument(help="A domain of `ntbench list`, or `folder:PATH`.")],
    size: Annotated[int, typer.Option(min=8, help="Image size in pixels.")] = 32,
    plugin: Plugins = None,
) -> None:
    """Read a domain and show its splits, its classes with their counts, and what was skipped or stands twice."""
    from ntbench.engine.session import cache_folder
    from ntbench.registry import registry
    from ntbench.report.catalogue import contents
    from ntbench.tasks.data import load_domain

    for file in plugin or []:
        registry.load_plugin(file)
    domain = load_domain(name, size, cache_folder())
    splits = {"train": domain.train, "val": domain.val, "test": domain.test}
    counts = {part: split.y.bincount(minlength=domain.classes).tolist() for part, split in splits.items()}
    console.print(contents(name, domain.class_names, counts))
    for remark in domain.remarks:
        console.print(remark, highlight=False, markup=False, soft_wrap=True)
