"""A board of denoisers, published from a run: numbers of images in place of bits, its words, its axis, no pictures."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from generation_fixtures import ROWS
from ntbench.leaderboard.attacks import render_attacks
from ntbench.leaderboard.publish import MAX_BYTES, publish
from ntbench.leaderboard.published import Board, merged
from ntbench.leaderboard.rebuilt import results_of, sum_of
from ntbench.leaderboard.render import render
from ntbench.leaderboard.schema import Published, PublishedCell, read
from ntbench.leaderboard.validate import validate
from ntbench.leaderboard.verify import verify

from ntbench.cli.app import console
from ntbench.engine.plan import cells_of
from ntbench.engine.runner import Runner
from ntbench.engine.session import Session, open_run
from ntbench.engine.store import Store
from ntbench.errors import UserError
from ntbench.measure.board import leaderboard_table
from ntbench.measure.differences import cell_differences
from ntbench.suite import Limits, Suite
from ntbench.types import digest, unpack_scores

Files = dict[str, Any]
TEST = PublishedCell._fields.index("test")


@pytest.fixture(scope="module")
def run(generation: Path) -> Session:
    return open_run(generation, console)


@pytest.fixture(scope="module")
def board(run: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder; tests must not change it."""
    folder = tmp_path_factory.mktemp("generation") / "results"
    publish(run.results(), run.suite, folder)
    return folder


@pytest.fixture
def mine(board: Path, tmp_path: Path) -> Path:
    """A results folder that a test may change."""
    return Path(shutil.copytree(board, tmp_path / "results"))


def place(folder: Path, defense: str = "sophon_generation") -> Path:
    return folder / "generation_smoke" / defense / "digits-letters.json"


def edit(folder: Path, change: Callable[[Files], object]) -> list[str]:
    """Edit a file as a careful forger would, with hashes made anew, and return what is found."""
    path = place(folder)
    file: Files = json.loads(path.read_bytes())
    change(file)
    forged = Published.model_validate(file)
    sums = [sum_of(cell, result) for cell, result in zip(forged.cells, results_of(forged), strict=True)]
    file["cells"] = [[*cell[:-1], found] for cell, found in zip(file["cells"], sums, strict=True)]
    content = {name: value for name, value in file.items() if name != "checksum"}
    path.write_text(json.dumps(content | {"checksum": digest(content)}), encoding="utf-8")
    found: list[str] = validate(folder)
    return found


def test_a_published_board_is_that_of_the_run(board: Path, run: Session) -> None:
    assert validate(board) == []
    ours, theirs = leaderboard_table(run.results(), run.suite), Board.read(board / "generation_smoke").table
    # Seconds are published with four digits.
    timed = [name for name in theirs.columns if "seconds" in name]
    pd.testing.assert_frame_equal(ours[timed], theirs[timed], check_dtype=False, rtol=1e-2)
    ours = ours[theirs.columns].drop(columns=timed)
    pd.testing.assert_frame_equal(ours, theirs.drop(columns=timed), check_dtype=False, atol=2e-6)
    assert theirs["frechet"].notna().all() and theirs["compute_uplift"].notna().all()


def test_recipes_scores_and_what_images_add_come_back(board: Path, run: Session) -> None:
    there = {result.cell.key: result for result in run.results()}
    kept = 0
    for name in ROWS:
        file = read(place(board, name), Published)
        assert file.objective == run.suite.objective
        for cell, after in zip(file.cells, results_of(file), strict=True):
            before = there.pop(after.cell.key)
            assert after.cell == before.cell and after.trajectory.test == before.trajectory.test
            assert after.frechet == before.frechet is not None
            for k, end in enumerate(before.trajectory.step):
                if cell.bits >> before.cell.budget.ends.index(end) & 1:
                    kept += 1
                    assert after.trajectory.correct[k] == before.trajectory.correct[k]
                else:
                    parts = unpack_scores(after.trajectory.correct[k], after.images)
                    assert np.ptp(parts) == 0 and parts[0] == pytest.approx(before.trajectory.test[k], rel=1e-3)
            assert before.protection and after.protection == before.protection.model_copy(update={"drawn": ""})
    assert not there and kept


def test_the_same_results_give_the_same_bytes_and_no_pictures(board: Path, run: Session, tmp_path: Path) -> None:
    paths = publish(reversed(list(run.results())), run.suite, tmp_path)
    for path in paths:
        text = path.read_bytes()
        assert text == (board / path.relative_to(tmp_path)).read_bytes()
        assert b'"drawn"' not in text and len(text) < MAX_BYTES / 10


def test_a_further_pair_brings_its_reference_and_no_other(mine: Path, run: Session) -> None:
    board = Board.read(mine / "generation_smoke")
    objective = run.suite.objective
    known = objective.params["reference"]

    def suite(**more: float) -> Suite:
        params = objective.params | {"reference": known | more}
        (task,) = run.suite.tasks
        further = task.model_copy(update={"source": "mnist"})
        told = objective.model_copy(update={"params": params})
        return run.suite.model_copy(update={"objective": told, "tasks": (further,)})

    whole = merged(board.suite, suite(mnist=0.1))
    assert whole.objective.params["reference"] == {**known, "mnist": 0.1}
    assert [task.name for task in whole.tasks] == ["digits-letters", "mnist-letters"]
    # The cells of the first pair do not change by it.
    (first, *_), (second, *_) = cells_of(whole), cells_of(suite(mnist=0.1))
    assert first.key == cells_of(board.suite)[0].key
    assert second.objective.params["reference"] == {"letters": known["letters"], "mnist": 0.1}
    with pytest.raises(UserError, match="its `objective` differs"):
        merged(board.suite, suite(letters=0.5))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda f: f["rows"][0].update(leak=0.5), r"rows\.target\.dense\.leak = 0\.5: the cells give"),
        (lambda f: f["rows"][0].update(frechet=1.0), r"rows\.target\.dense\.frechet = 1\.0: the cells give"),
        (lambda f: f["protections"]["0"].update(frechets=[1.0, 1.0, 1.0]), r"rows\.target\.dense\.frechet = "),
        (lambda f: f["protections"]["0"]["kids"].__setitem__(2, 1.0), r"rows\.target\.dense\.kid = "),
        (lambda f: f["protections"]["0"].update(source_after=0.5), r"source_after = 0\.5: its images give"),
        (lambda f: f["protections"]["0"].update(kept=":AAAA"), r"kept: does not say what each of 40 images adds"),
        (lambda f: f["cells"][0][TEST].__setitem__(-1, 0.5), r"cells\.0\.test .*: its images give"),
        (lambda f: f["objective"]["params"].update(channels=3), r"objective = .*: the suite has"),
        (lambda f: f["objective"]["params"].update(channels=3), r"keys = .*: the recipes of the cells have the keys"),
        (lambda f: f.pop("objective"), r"objective = .*classification.*: the suite has"),
    ],
)
def test_every_edit_is_named(mine: Path, change: Callable[[Files], object], named: str) -> None:
    found = edit(mine, change)
    assert any(re.search(named, line) for line in found), found


def test_a_distance_that_is_missing_or_changed_is_told(mine: Path, run: Session) -> None:
    with pytest.raises(UserError, match="cells do not fit the file"):
        edit(mine, lambda f: f["frechets"].pop())
    result = run.results()[0]
    assert result.frechet is not None
    near, far = (1 + 1e-13) * result.frechet, (1 + 1e-7) * result.frechet
    assert not [*cell_differences(result, result.model_copy(update={"frechet": near}))], "another processor rounds so"
    found = [*cell_differences(result, result.model_copy(update={"frechet": far}))]
    assert found == [f"frechet, {result.frechet}, is {far}"]
    release = result.protection
    assert release is not None and release.frechets
    moved = release.model_copy(update={"frechets": tuple(1.001 * each for each in release.frechets)})
    (said,) = cell_differences(result, result.model_copy(update={"protection": moved}))
    assert said.startswith("frechets, ")
    gone = release.model_copy(update={"frechets": None})
    assert [*cell_differences(result, result.model_copy(update={"protection": gone}))]


def test_a_cell_computed_again_matches(mine: Path, few_images: None, cache: Path, tmp_path: Path) -> None:
    runner = Runner(Store(tmp_path / "again"), torch.device("cpu"), Limits(), cache)
    path = place(mine, "none")
    assert verify(path, runner.run, seed=0).matches
    assert read(path, Published).verified and validate(mine) == []


def test_pages_speak_of_scores_beside_a_board_that_speaks_of_accuracy(
    board: Path, published: Path, tmp_path: Path
) -> None:
    both = Path(shutil.copytree(published, tmp_path / "results"))
    shutil.copytree(board / "generation_smoke", both / "generation_smoke")
    page = render(both)
    ours, theirs = (page[page.index(f"## {name}") :].split("\n## ")[0] for name in ("generation_smoke-1", "tiny-1"))
    assert not re.search(r"accurac", ours, re.IGNORECASE)
    assert "| Over compute, points |" in ours and "| Frechet distance after |" in ours and "unet2d, denoising;" in ours
    assert "rest on uplift over compute. What a rational attacker gains, as a mean difference of score over" in ours
    # Of the smoke's board there are three points at either sample count, too few for a correlation.
    assert "Spearman" not in ours + theirs
    assert "| SLC-AUC |" in theirs.partition("\n\n")[2] and "Frechet" not in theirs
    assert theirs in render(published)
    sections = re.findall(r"^## (.*), track target$", render_attacks(both), re.MULTILINE)
    assert sections == ["generation_smoke-1", "tiny-1"]
