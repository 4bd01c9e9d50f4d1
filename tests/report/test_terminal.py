import io
import subprocess
import sys

import boards
import pytest
from rich.console import Console

from ntbench.report.terminal import details, folded, headlines, shared

HOSTILE = "<b>&_$\\frac{$[red]"


def shown(width: int, names: tuple[str, ...] = boards.METHODS, wide: bool = False) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    board, suite = boards.board(names), boards.suite(names)
    console.print(*(details if wide else headlines)(board, suite, width))
    return console.export_text()


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_lost(width: int, wide: bool) -> None:
    text = shown(width, wide=wide)
    assert max(map(len, text.splitlines())) <= width
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert "nan" not in text.lower().replace("domain", "")


def test_the_seven_columns_the_gates_and_the_tasks_are_there() -> None:
    text = shown(80)
    head = " ".join(text.split("\n\n")[0].split())
    for name in ("Defense", "Leak", "SLC-", "Speed-", "Source", "Strongest", "Verdict"):
        assert name in head
    assert text.count("Gates: ") == 3
    assert "photo to sketch" in text
    assert "a-defense-with-a-" in text and "loops-3-inner-2" in text


def test_under_five_seeds_the_brackets_are_a_range() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(*headlines(boards.board(seeds=3), boards.suite()))
    assert "range of 3 seeds" in console.export_text()


def test_names_are_no_markup() -> None:
    assert HOSTILE in shown(160, (HOSTILE, "b", "c"))


def test_texts_fold_after_hyphens_and_long_words_where_they_must() -> None:
    assert folded("momentum-0.03-new_head", 10) == "momentum-\n0.03-new_\nhead"
    assert folded("abcdefgh", 3) == "abc\ndef\ngh"
    assert folded("a b", 3) == "a b"


def test_room_is_shared_by_need() -> None:
    assert shared([5, 40, 40], 45) == [5, 20, 20]
    assert shared([5, 6], 45) == [5, 6]


def test_the_terminal_waits_neither_for_figures_nor_for_torch() -> None:
    code = "import sys, ntbench.report.terminal; print({'seaborn', 'matplotlib', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
