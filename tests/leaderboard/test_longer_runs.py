"""Checks: a longer run, one of more seeds, or one of further attacks, beside the board that it checks."""

import re
from pathlib import Path

import pytest
from ntbench.leaderboard.checks import FOLDER, checks_of, folders, publish
from ntbench.leaderboard.publish import publish as write_rows
from ntbench.leaderboard.published import Board
from ntbench.leaderboard.render import render
from ntbench.leaderboard.validate import validate
from ntbench.leaderboard.verify import verify
from small_board import COUNTS, GAIN, NEW, PAIR, SEEDS, one, small_results, small_suite

from ntbench.errors import UserError
from ntbench.measure.board import leaderboard_table
from ntbench.report.views import View
from ntbench.types import Cell, Result


def longer(result: Result, horizon: float) -> Result:
    content = result.cell.model_dump()
    content["budget"]["horizon"] = horizon
    return result.model_copy(update={"cell": Cell.model_validate(content)})


def check(place: Path, horizon: float = 16.0, attack: str = "strong {x}") -> list[Path]:
    suite = small_suite(
        horizon=horizon,
        attacks=[{"name": "finetune", "label": "strong {{x}}", "grid": {"mask": ["dense", "keep"]}}],
    )
    found = [longer(result, horizon) for result in small_results() if result.cell.attack.label == attack]
    paths: list[Path] = publish(found, suite, place)
    return paths


@pytest.fixture
def board(tmp_path: Path) -> Path:
    write_rows(small_results(), small_suite(), tmp_path / "results")
    return tmp_path


def views(board: Path) -> list[View]:
    held = Board.read(board / "results/tiny")
    return [view for check in checks_of(held, board) for view in check.views(PAIR)]


def test_a_longer_run_stands_beside_its_board(board: Path) -> None:
    page = render(board / "results")
    assert "### At 16 T90" not in page
    check(board)
    assert [place.name for place in folders(board)] == ["horizon"]
    assert validate(*folders(board)) == [] and validate(board / "results") == []
    page = render(board / "results")
    assert "### At 16 T90 in place of 8 T90" in page
    headings = " | ".join(f"{name} at {t90} T90" for name in ("Leak", "Speed-up", "Verdict") for t90 in (8, 16))
    assert f"| Defense | {headings} |" in page
    assert "The attacks that ran at 16 T90, in all columns: strong {x}; strong {x} (mask kept)." in page


def test_its_numbers_are_those_of_its_own_rows(board: Path) -> None:
    check(board)
    (view,) = views(board)
    own = Board.read(board / FOLDER / "horizon/tiny").table
    strong = [result for result in small_results() if result.cell.attack.label == "strong {x}"]
    grid = [{"name": "finetune", "label": "strong {{x}}", "grid": {"mask": ["dense", "keep"]}}]
    published = leaderboard_table(strong, small_suite(attacks=grid))
    assert published["leak"].tolist() != Board.read(board / "results/tiny").table["leak"].tolist()
    assert {row["defense"] for row in view.rows} == {"none", "sophon", "ntp"}
    for row in view.rows:
        for table, name in ((own, "there_leak"), (published, "leak")):
            same = table[(table["defense"] == row["defense"]) & (table["mask"] == row["mask"])]
            assert row[name] == pytest.approx(same["leak"].item(), abs=2e-6)
    verdicts = {row["defense"]: (row["here"], row["there"]) for row in view.rows if row["mask"] == "dense"}
    assert verdicts["none"] == ("leaks", "leaks")
    (kept,) = (row for row in view.rows if row["mask"] == "keep")
    assert "here" not in kept and "there" not in kept, "a row that is not ranked has no verdict"
    interval = r"-?\d\.\d\d \\\[-?\d\.\d\d, -?\d\.\d\d\\\]"
    assert re.search(rf"^\| sophon \| {interval} \| {interval} \|", render(board / "results"), re.M)


def test_a_run_of_more_seeds_is_a_check_too(board: Path) -> None:
    seeds = range(2 * len(SEEDS))
    publish(small_results(seeds=seeds), small_suite(seeds=list(seeds)), board)
    assert [place.name for place in folders(board)] == ["seeds"] and validate(*folders(board)) == []
    (view,) = views(board)
    assert view.title == "With 10 seeds in place of 5 seeds"
    assert {row["there_seeds"] for row in view.rows} == {10} and {row["seeds"] for row in view.rows} == {5}
    assert "| Verdict with 5 seeds | Verdict with 10 seeds |" in render(board / "results")


MASKS = ("dense", "keep")


def test_a_run_of_further_attacks_is_a_check_too(board: Path) -> None:
    further = [{"name": "finetune", "label": NEW, "grid": {"mask": list(MASKS)}}]
    found = [one(d, mask, NEW, n, seed) for d in GAIN for mask in MASKS for n in COUNTS for seed in SEEDS]
    publish(found, small_suite(attacks=further, paper={"attack": NEW}), board)
    assert [place.name for place in folders(board)] == ["attacks"] and validate(*folders(board)) == []
    (view,) = views(board)
    assert view.title == "With 6 attacks in place of 4 attacks"
    whole = leaderboard_table(
        [*small_results(), *found], small_suite(attacks=[*small_suite().model_dump()["attacks"], *further])
    )
    rows = {row["defense"]: row for row in view.rows if row["mask"] == "dense"}
    for name, row in rows.items():
        same = whole[(whole["defense"] == name) & (whole["mask"] == "dense")]
        assert row["there_leak"] == pytest.approx(same["leak"].item(), abs=2e-6)
    assert {name for name, row in rows.items() if row["there_leak"] > row["leak"] + 0.1} == {"sophon"}
    page = render(board / "results")
    assert f"The attacks that came on top: {NEW}; {NEW} (mask kept)." in page and "Gates with 6 attacks: " in page
    assert "| Verdict with 4 attacks | Verdict with 6 attacks |" in page


def test_an_attack_under_the_label_of_another_is_no_check(board: Path) -> None:
    other = [{"name": "finetune", "label": "weak", "params": {"lr": 0.5}}]
    with pytest.raises(UserError, match="has the label of another one of the board; rename it"):
        publish([], small_suite(attacks=other, paper={"attack": "weak"}), board)


def test_a_check_needs_a_board_and_a_longer_horizon(board: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is one at 8 T90 with \d seeds .* nowhere less far: .*--horizon 16, or"):
        check(board, horizon=8.0)
    with pytest.raises(UserError, match=r"no board of tiny-1 is published .*; publish the board first"):
        check(tmp_path / "elsewhere")
    assert not (board / FOLDER).exists()


def test_a_cell_is_drawn_from_rows_alone(board: Path) -> None:
    (board / "reproduced").mkdir()
    (board / "reproduced/paper.json").write_text("{}")
    held = {result.cell.coordinates: result for result in small_results()}
    for seed in range(6):
        assert verify(board, lambda cell: held[cell.coordinates].model_copy(update={"cell": cell}), seed=seed).matches
