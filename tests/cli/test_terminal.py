"""The leaderboard in a terminal of eighty columns."""

import io
import re
from collections.abc import Iterator

from fabricated import ATTACKS, ROWS, STEPS, additive, grid, suite, trajectory
from rich.console import Console

from ntbench.measure.tables import leaderboard_table
from ntbench.report.page import terminal_table
from ntbench.types import Result


def results() -> Iterator[Result]:
    """Yield labels as long as real ones, and an automatic attack of sixteen budgets."""
    for r in grid(additive, ROWS):
        label = {"ntp": "random_mask-2", "sophon": "sophon-klu"}.get(r.cell.defense.name, r.cell.defense.label)
        defense = r.cell.defense.model_copy(update={"label": label})
        attack = r.cell.attack.model_copy(update={"label": f"new head, {r.cell.attack.label} 0.001"})
        yield r.model_copy(update={"cell": r.cell.model_copy(update={"defense": defense, "attack": attack})})
        if r.cell.attack.label == "weak" and r.cell.mask == "dense":
            auto = attack.model_copy(update={"name": "auto", "label": "auto"})
            run = trajectory((*r.trajectory.test[:-1], 0.9), steps=tuple(16 * step for step in STEPS))
            cell = r.cell.model_copy(update={"defense": defense, "attack": auto})
            yield r.model_copy(update={"cell": cell, "trajectory": run})


def shown(width: int) -> str:
    labels = [f"new head, {name} 0.001" for name in ATTACKS]
    attacks = [{"name": "finetune", "label": label} for label in labels]
    whole = suite(defenses=[{"name": "scratch"}], attacks=attacks, paper={"attack": labels[0]})
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(terminal_table(leaderboard_table(results(), whole)))
    return console.export_text()


def test_the_table_fits_eighty_columns_where_attacks_have_long_names() -> None:
    wide, narrow = shown(200), shown(80)
    numbers = r"(?<!\S)[-+>\d][ .\d]*(?!\S)|random_mask-2[* ]|S(?!\S)|yes|no(?!\S)"
    assert re.findall(numbers, narrow) == re.findall(numbers, wide.replace("strong 0.001", "strong"))
    assert narrow.count("new head,") == wide.count("new head,") == 1
    assert "\u2026" in narrow and "\u2026" not in wide


def test_paper_grid_auto_and_worst_case_stand_in_one_line() -> None:
    lines = {line.split()[1]: line for line in shown(200).splitlines() if len(line.split()) > 8}
    assert re.search(r"S +-0.46 +-0.46 +0.00 +0.00 .* auto +3840 no", lines["sophon-klu"])
    # Nothing but the grid faces the kept mask, while scratch may search too.
    assert re.search(r"S +- +-1.38 +- +-3.45 .* new head, strong 0.001 +240 no", lines["random_mask-2*"])
