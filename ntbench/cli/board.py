"""Commands on published rows: check them, compute one again, write their page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ntbench.cli.app import app, console

board = typer.Typer(no_args_is_help=True, help="Check and render the published rows in a `leaderboard` folder.")
app.add_typer(board, name="leaderboard")


@board.command()
def validate(
    folder: Annotated[Path, typer.Argument(help="The leaderboard folder.")] = Path("leaderboard"),
) -> None:
    """Check the schema, the keys and the arithmetic of every published row."""
    from ntbench.leaderboard.checks import folders
    from ntbench.leaderboard.reproductions import problems as reproduction_problems
    from ntbench.leaderboard.validate import validate as problems

    found = [problem for place in (folder / "results", *folders(folder)) for problem in problems(place)]
    found += reproduction_problems(folder / "reproduced")
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
    """Render the published rows as README.md, what attacks carry as attacks.md, and papers' claims as claims.md."""
    from ntbench.leaderboard.attacks import render_attacks
    from ntbench.leaderboard.claims import render as render_claims
    from ntbench.leaderboard.render import render as markdown

    pages = {"README.md": markdown(folder / "results"), "attacks.md": render_attacks(folder / "results")}
    for name, page in (pages | {"claims.md": render_claims(folder / "reproduced")}).items():
        (folder / name).write_text(page, encoding="utf-8")
        console.print(f"wrote {folder / name}")
