"""The page of attacks, from the small board: the strong attack alone carries every worst case."""

from pathlib import Path

import pytest
from ntbench.leaderboard.attacks import render_attacks
from typer.testing import CliRunner

from ntbench.cli import app
from ntbench.errors import UserError


def test_the_page_tells_which_attacks_carry_the_worst_cases(published: Path) -> None:
    page = render_attacks(published)
    assert "## tiny-1, track target" in page
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| strong {x}")]
    assert rows == [
        ["| strong {x}", "75.0", "75.0", "yes", "none; ntp; sophon |"],
        ["| strong {x} (mask kept)", "12.5", "12.5", "yes", "ntp (mask kept) |"],
    ]
    assert "2 of 4 attacks carry all worst cases (strong {x}; strong {x} (mask kept))." in page
    assert "A start without the release carries 1 of 8 worst cases." in page
    assert "With these alone no worst case falls by more than 0.00 points." in page
    assert "Carry none: weak; weak (mask kept)." in page
    assert "nan" not in page and "None" not in page


def test_rendering_writes_both_pages(copy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "leaderboard"
    folder.mkdir()
    copy.rename(folder / "results")
    done = CliRunner().invoke(app, ["leaderboard", "render", str(folder)])
    assert done.exit_code == 0, done.output
    assert (folder / "attacks.md").read_text() == render_attacks(folder / "results")
    assert (folder / "README.md").exists()


def test_an_empty_folder_says_so_and_a_missing_one_is_a_mistake(tmp_path: Path) -> None:
    assert "No board is published yet." in render_attacks(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        render_attacks(tmp_path / "nowhere")
