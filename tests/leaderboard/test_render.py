"""The page: seven columns, what was found, and which rows nobody has computed again."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from ntbench.leaderboard.published import Board
from ntbench.leaderboard.render import render
from ntbench.leaderboard.verify import verify
from small_board import small_results

from ntbench.errors import UserError
from ntbench.types import Cell, Result

ROOT = Path(__file__).parents[2]
HELD = {r.cell.coordinates: r for r in small_results()}


def again(cell: Cell) -> Result:
    """Return what the board's run gave."""
    return HELD[cell.coordinates].model_copy(update={"cell": cell})


def lines(page: str, start: str = "| Defense") -> list[list[str]]:
    """Return the cells of the first table that starts so, its heading first and without the rule below it."""
    table = re.split(r"\n\n", page[page.index(start) :])[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in (table[0], *table[2:])]


def test_the_table_has_seven_columns_and_the_rows_in_order(published: Path) -> None:
    head, *rows = lines(render(published))
    assert head == ["Defense", "Leak", "SLC-AUC", "Speed-up", "Source drop", "Strongest attack", "Verdict"]
    assert {row[0].removesuffix(r" \*") for row in rows} == {"sophon", "ntp", r"ntp \* (mask kept)", "none", "scratch"}
    assert [row[0] for row in rows][-1] == r"scratch \*"


def test_the_page_says_what_the_rows_show(published: Path) -> None:
    page, table = render(published), Board.read(published / "tiny").table
    assert "## tiny-1: a to b" in page
    assert "Gates: " in page and "### What one fixed attack says" in page
    row = table[(table.defense == "sophon")].iloc[0]
    assert f"| {row.leak:.2f} \\[{row.leak_low:.2f}, {row.leak_high:.2f}\\] |" in page
    assert "4 attacks, 160 cells." in page
    assert not re.search(r"\b(nan|None|True)\b", page)


def test_rows_that_nobody_computed_again_are_marked(copy: Path) -> None:
    assert r"\* Nobody has computed a run of this row again." in render(copy)
    for row in ("ntp", "sophon", "none", "scratch"):
        assert verify(copy / "tiny" / row, again, seed=0).matches
        assert rf"| {row} \* |" not in render(copy)
    page = render(copy)
    assert r"\*" not in page and "Nobody" not in page
    assert re.search(r"- ntp: 1 of 40 cells, last with version .* on \d{4}-\d\d-\d\d\n", page)


def test_the_committed_page_is_that_of_the_committed_files() -> None:
    page = (ROOT / "leaderboard/README.md").read_text(encoding="utf-8")
    assert page == render(ROOT / "leaderboard/results")


def test_an_empty_folder_says_so_and_a_missing_one_is_a_mistake(tmp_path: Path) -> None:
    assert "No board is published yet." in render(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        render(tmp_path / "nowhere")


def test_rendering_and_checking_need_no_torch_and_no_figures() -> None:
    code = "import sys, ntbench.leaderboard.render, ntbench.leaderboard.validate, ntbench.leaderboard.verify;"
    code += "print({'torch', 'seaborn', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
