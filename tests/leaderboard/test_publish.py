"""Publishing: what files hold, that the same results give the same bytes, and how rows join a board."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fabricated import outcome, trajectory
from ntbench.leaderboard.publish import MAX_BYTES, publish
from ntbench.leaderboard.published import Board
from ntbench.leaderboard.rebuilt import results_of
from ntbench.leaderboard.schema import ROW, Published, read
from ntbench.leaderboard.validate import validate
from small_board import COUNTS, IMAGES, SEEDS, loaded, small_results, small_suite

from ntbench.errors import UserError
from ntbench.measure.board import leaderboard_table
from ntbench.types import Cell, Result, Training, Tuning


def test_files_of_weights_are_no_rows_that_anybody_could_recompute(tmp_path: Path) -> None:
    files = small_suite(pretrain=Training(), defenses=[{"name": "scratch"}, {"release": "mine.safetensors"}])
    with pytest.raises(UserError, match="attacks files of weights, which nobody else can make"):
        publish(small_results(), files, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_published_board_has_no_problems(published: Path) -> None:
    assert validate(published) == []


def test_the_same_results_give_the_same_bytes_in_any_order(published: Path, tmp_path: Path) -> None:
    shuffled = small_results()
    random.Random(0).shuffle(shuffled)
    for path in publish(shuffled, small_suite(), tmp_path):
        assert path.read_bytes() == (published / path.relative_to(tmp_path)).read_bytes()
        assert len(path.read_bytes()) < MAX_BYTES


def test_the_published_rows_are_those_of_the_run(published: Path) -> None:
    ours = leaderboard_table(small_results(), small_suite())
    theirs = Board.read(published / "tiny").table
    pd.testing.assert_frame_equal(ours[theirs.columns], theirs, check_dtype=False, atol=2e-6)
    assert set(ours.columns) == {"task", "defense", *ROW}


def test_every_run_comes_back_as_it_was(published: Path) -> None:
    file = read(published / "tiny/ntp/a-b.json", Published)
    back = {result.cell.key: result for result in results_of(file)}
    for before in (r for r in small_results() if r.cell.defense.name == "ntp"):
        after = back[before.cell.key]
        assert after.cell == before.cell
        for name in ("step", "val", "test", "samples", "flops", "seconds", "own"):
            assert getattr(after.trajectory, name) == getattr(before.trajectory, name)
        for name in ("status", "track", "paid", "protection", "images", "originals", "source_images"):
            assert getattr(after, name) == getattr(before, name)
    kept = sum(cell.bits.bit_count() for cell in file.cells)
    assert 0 < kept < sum(len(r.trajectory.step) for r in back.values()), "images of the runs that a number rests on"


def test_files_hold_counts_of_images_and_no_folder_of_a_machine(published: Path) -> None:
    file = loaded(published)
    assert (file["images"], file["test_of"]) == (IMAGES, IMAGES)
    assert {type(score) for cell in file["cells"] for score in cell[9]} == {int}
    assert "/home" not in "".join(path.read_text() for path in published.rglob("*.json"))
    assert "scratch releases no zeros" in loaded(published, "scratch")["texts"]
    assert [(row["track"], row["mask"]) for row in file["rows"]] == [("target", "dense"), ("target", "keep")]


def test_a_tuned_row_says_so_and_others_are_as_they_were(published: Path, tmp_path: Path) -> None:
    tuning = Tuning(trials=8, names=("lr",), steps=1234, flops=10**9, leak=0.1, drop=0.01, kept={"lr": 0.1})
    results = []
    for r in small_results():
        content = r.cell.model_dump()
        if r.cell.defense.name == "ntp":
            content["defense"]["tuning"] = tuning
        results.append(r.model_copy(update={"cell": Cell.model_validate(content)}))
    publish(results, small_suite(), tmp_path)
    assert validate(tmp_path) == []
    file = read(tmp_path / "tiny/ntp/a-b.json", Published)
    assert file.defense.tuning == tuning
    assert {(row["trials"], row["tuning_steps"], row["tuning_flops"]) for row in file.rows} == {(8, 1234, 10**9)}
    assert {row["trials"] for row in Board.read(tmp_path / "tiny").table.to_dict("records") if row["trials"] > 0} == {8}
    other = "tiny/sophon/a-b.json"
    assert (tmp_path / other).read_bytes() == (published / other).read_bytes()


def test_a_board_says_in_what_precision_it_chose(published: Path, tmp_path: Path) -> None:
    low = small_suite(scoring="bfloat16")
    found = [
        r.model_copy(update={"cell": Cell(**r.cell.model_dump() | {"scoring": "bfloat16"})}) for r in small_results()
    ]
    publish(found, low, tmp_path)
    assert validate(tmp_path) == []
    assert (loaded(tmp_path)["scoring"], "scoring" in loaded(published)) == ("bfloat16", False)
    with pytest.raises(UserError, match="the results have another recipe"):
        publish(small_results(), low, tmp_path)


def changed(results: list[Result], **fields: Any) -> list[Result]:
    """Return the results with fields of the first run on `ntp` changed."""
    found = list(results)
    k = next(k for k, r in enumerate(found) if r.cell.defense.name == "ntp")
    found[k] = found[k].model_copy(update=fields)
    return found


def test_a_failed_run_keeps_what_it_reached_and_its_reason(tmp_path: Path) -> None:
    run = small_results(("ntp",))[0].trajectory
    part = run.model_copy(update={name: column[:3] for name, column in run})
    found = changed(small_results(), status="diverged", error="nan at 7\nTraceback", trajectory=part)
    publish(found, small_suite(), tmp_path)
    assert validate(tmp_path) == []
    (cell,) = [cell for cell in loaded(tmp_path)["cells"] if cell[4] == "diverged"]
    assert [score is None for score in cell[9]] == [False] * 3 + [True] * 4
    assert loaded(tmp_path)["texts"][cell[5]] == "nan at 7"


def test_scores_that_are_no_shares_of_images_stay_as_they_are(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    found = []
    for r in small_results():
        test = np.sort(draw.random(7)).tolist()
        found.append(r if r.status != "ok" else outcome(r.cell, trajectory(test), provenance=r.provenance))
    publish(found, small_suite(), tmp_path)
    assert validate(tmp_path) == []
    assert (loaded(tmp_path)["test_of"], loaded(tmp_path)["correct"]) == (0, "")
    ours, theirs = leaderboard_table(found, small_suite()), Board.read(tmp_path / "tiny").table
    pd.testing.assert_frame_equal(ours[theirs.columns], theirs, check_dtype=False, atol=2e-6)


def test_a_row_joins_a_board_and_moves_the_ranks_of_the_others(published: Path, tmp_path: Path) -> None:
    for row in ("ntp", "sophon"):
        names = ("none", "scratch", row)
        publish(small_results(names), small_suite(defenses=[{"name": name} for name in names]), tmp_path)
        assert validate(tmp_path) == []
        assert loaded(tmp_path)["rows"][0]["rank"] == (1 if row == "ntp" else 2)
    ours, theirs = (Board.read(folder / "tiny").table for folder in (published, tmp_path))
    pd.testing.assert_frame_equal(ours, theirs)


def test_another_suite_does_not_join_a_board(copy: Path) -> None:
    with pytest.raises(UserError, match="its `max_drop` differs from that of the published board"):
        publish(small_results(), small_suite(max_drop=0.05), copy)
    pair = small_suite().tasks[0].model_dump()
    pair["levels"][0]["plateau"] = 0.4
    with pytest.raises(UserError, match=r"task a-b is not as published, with T90 and plateau"):
        publish(small_results(), small_suite(tasks=[pair]), copy)
    assert validate(copy) == []


def test_a_run_that_is_not_finished_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results of tiny-1 to publish; run `ntbench run tiny` first"):
        publish([], small_suite(), tmp_path)
    with pytest.raises(UserError, match=r"1 cells of tiny-1 have not run, first 'weak' \(dense, others\) on none"):
        publish(small_results()[1:], small_suite(), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("label", ["../up", "a/b", ".hidden", "<script>"])
def test_a_label_that_cannot_name_a_folder_is_refused(label: str, tmp_path: Path) -> None:
    found = []
    for r in small_results():
        spec = r.cell.defense
        spec = spec.model_copy(update={"label": label}) if spec.name == "ntp" else spec
        found.append(r.model_copy(update={"cell": r.cell.model_copy(update={"defense": spec})}))
    names = ("none", "scratch", "ntp", "sophon")
    defenses = [{"name": name, "label": label if name == "ntp" else ""} for name in names]
    with pytest.raises(UserError, match="cannot name a folder"):
        publish(found, small_suite(defenses=defenses), tmp_path / "results")
    assert not list(tmp_path.iterdir())


def test_two_recipes_under_one_label_are_refused(tmp_path: Path) -> None:
    cell = small_results(("ntp",))[0].cell
    other = cell.model_copy(update={"defense": cell.defense.model_copy(update={"params": {"lr": 1.0}})})
    with pytest.raises(UserError, match=r"defense: .* are mixed"):
        publish(changed(small_results(), cell=other), small_suite(), tmp_path)
    longer = cell.model_copy(update={"budget": cell.budget.model_copy(update={"horizon": 16.0})})
    with pytest.raises(UserError, match="two budgets are mixed"):
        publish(changed(small_results(), cell=longer), small_suite(), tmp_path)


def test_results_of_another_recipe_than_the_suites_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tiny/.*: the results have another recipe than tiny-1"):
        publish(small_results(), small_suite(source_share=0.2), tmp_path)
    with pytest.raises(UserError, match=r"tiny/.*: the results have another recipe than tiny-1"):
        publish(small_results(), small_suite(objective="denoising"), tmp_path)


def test_marks_stay_while_the_scores_do(copy: Path) -> None:
    path = copy / "tiny/ntp/a-b.json"
    file = read(path, Published)
    mark = {"version": "1", "date": "2030-01-01", "cells": (results_of(file)[0].cell.key,)}
    path.write_text(Published.model_validate(file.model_dump() | {"verified": (mark,)}).text(), encoding="utf-8")
    assert validate(copy) == []
    publish(small_results(), small_suite(), copy)
    assert [held["date"] for held in loaded(copy)["verified"]] == ["2030-01-01"]
    run = small_results(("ntp",))[0].trajectory.model_copy(update={"val": (0.5,) * 7})
    publish(changed(small_results(), trajectory=run), small_suite(), copy)
    assert loaded(copy)["verified"] == []


def test_a_file_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ntbench.leaderboard.publish.MAX_BYTES", 2000)
    with pytest.raises(UserError, match="bytes exceed 2000"):
        publish(small_results(), small_suite(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_text_is_json_with_sorted_keys(published: Path) -> None:
    text = (published / "tiny/ntp/a-b.json").read_text(encoding="utf-8")
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert len(loaded(published)["cells"]) == 2 * 2 * len(COUNTS) * len(SEEDS)
