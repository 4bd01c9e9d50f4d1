"""Every edit of a published number is named, also where whoever made it has the file's hash made anew."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ntbench.leaderboard.packing import packed, unpacked
from ntbench.leaderboard.publish import MAX_BYTES
from ntbench.leaderboard.published import Board
from ntbench.leaderboard.render import render
from ntbench.leaderboard.schema import PublishedCell
from ntbench.leaderboard.validate import validate
from small_board import Files, leaves, loaded, written

from ntbench.errors import UserError
from ntbench.types import digest

POSITION = {name: k for k, name in enumerate(PublishedCell._fields)}


def sealed(file: Files) -> Files:
    """Return an edited file with its hash made anew, as a careful forger would."""
    content = {name: value for name, value in file.items() if name != "checksum"}
    return content | {"checksum": digest(content)}


def moved(value: Any) -> Any:
    """Return another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value - 1 if value > 0 else value + 1
    return value * 0.99 - 0.001 if isinstance(value, float) else value


def put(file: Files, place: tuple[Any, ...], value: Any) -> None:
    for key in place[:-1]:
        file = file[key]
    file[place[-1]] = value


def test_every_edited_number_of_a_row_is_named(copy: Path) -> None:
    file = loaded(copy)
    places = [place for place, value in leaves(file["rows"]) if isinstance(value, int | float)]
    for place in places:
        put(file["rows"], place, moved(file["rows"][place[0]][place[1]]))
    found = validate(Path(written(copy, sealed(file)).parents[2]))
    names = {f"rows.target.{file['rows'][place[0]]['mask']}.{place[1]} = " for place in places}
    assert len(names) > 100
    for name in names:
        assert any(name in line and "the cells give" in line for line in found), name


@pytest.mark.parametrize("column", ["verdict", "reason", "attack", "gates", "paper_attack", "needs", "note", "leak"])
def test_every_edited_word_of_a_row_is_named(copy: Path, column: str) -> None:
    file = loaded(copy)
    file["rows"][0][column] = "holds"
    written(copy, sealed(file))
    assert any(f"rows.target.dense.{column} = 'holds'" in line for line in validate(copy))


@pytest.mark.parametrize("column", ["paid", "val", "test", "status", "images", "sum"])
def test_every_edited_cell_is_named(copy: Path, column: str) -> None:
    file, at = loaded(copy), POSITION[column]
    edits = {"status": "timeout", "images": "0" * 8, "sum": "0" * 8}
    for cell in file["cells"]:
        last = [*cell[at][:-1], moved(cell[at][-1])] if column in ("val", "test") else moved(cell[at])
        cell[at] = edits.get(column, last)
    written(copy, sealed(file))
    lines = validate(copy)
    for k in range(len(file["cells"])):
        assert any(f"ntp/a-b.json: cells.{k} (" in line for line in lines), k


def test_a_lowered_score_does_not_fit_its_images_even_with_every_hash_made_anew(copy: Path) -> None:
    from ntbench.leaderboard.rebuilt import results_of, sum_of
    from ntbench.leaderboard.schema import Published

    file = loaded(copy)
    cell = next(cell for cell in file["cells"] if cell[POSITION["bits"]] >> 6)
    cell[POSITION["test"]][-1] -= 1
    k, forged = file["cells"].index(cell), Published.model_validate_json(json.dumps(file))
    cell[POSITION["sum"]] = sum_of(forged.cells[k], results_of(forged)[k])
    written(copy, sealed(file))
    assert any(re.search(rf"cells\.{k}\.test \(.*its images give", line) for line in validate(copy))


def test_a_reason_of_another_cell_is_named(copy: Path) -> None:
    file = loaded(copy, "none")
    file["texts"].append("it is not fit")
    cell = next(cell for cell in file["cells"] if cell[POSITION["status"]] == "inapplicable")
    cell[POSITION["error"]] = 2
    written(copy, sealed(file), "none")
    assert any(f"none/a-b.json: cells.{file['cells'].index(cell)} (" in line for line in validate(copy))


@pytest.mark.parametrize("column", ["attack", "samples", "seed", "bits", "knowledge"])
def test_a_cell_that_takes_the_place_of_another_is_named(copy: Path, column: str) -> None:
    file, at = loaded(copy), POSITION[column]
    cell = file["cells"][0]
    cell[at] = {"samples": 100, "knowledge": "own"}.get(column) or cell[at] + 1
    written(copy, sealed(file))
    lines = [line for line in validate(copy) if "ntp/a-b.json: " in line]
    assert any("cells" in line for line in lines), lines


@pytest.mark.parametrize("part", range(3))
def test_every_edited_cost_is_named_by_its_cell(copy: Path, part: int) -> None:
    file = loaded(copy)
    columns = unpacked(file["columns"])
    for costs in columns:
        costs[part][0] = moved(costs[part][0])
    file["columns"] = packed(columns)
    written(copy, sealed(file))
    lines = validate(copy)
    assert all(any(f"cells.{k} (" in line for line in lines) for k in range(len(file["cells"])))


RECIPE = [
    *(("horizon",), ("scored",), ("source_share",), ("seeds", 1), ("images",), ("originals",), ("source_images",)),
    *(("val_of",), ("test_of",), ("schema_version",), ("task", "levels", 0, "t90"), ("task", "levels", 1, "plateau")),
    *(("task", "image_size"), ("task", "defender_share"), ("pretrain", "lr"), ("pretrain", "steps")),
    *(("defense", "version"), ("attacks", 0, "spec", "version")),
]


@pytest.mark.parametrize("place", RECIPE, ids=lambda place: ".".join(map(str, place)))
def test_every_edited_number_of_a_recipe_is_found(copy: Path, place: tuple[Any, ...]) -> None:
    file = loaded(copy)
    value: Any = file
    for key in place:
        value = value[key]
    put(file, place, moved(value))
    written(copy, sealed(file))
    words = {"images": "cells", "originals": "rows", "source_images": "source_before", "val_of": "cells"}
    words |= {"test_of": "cells", "version": "keys"}
    said = words.get(str(place[-1]), str(place[0]))
    assert any(f"ntp/a-b.json: {said}" in line or f".{said}" in line for line in validate(copy))


PROTECTIONS = (
    *("source_before", "source_after", "zero_shot", "sparsity", "pretrain_seconds"),
    *("protect_seconds", "protect_flops", "protect_steps"),
)


@pytest.mark.parametrize("name", PROTECTIONS)
def test_every_edited_number_of_a_protection_is_found(copy: Path, name: str) -> None:
    file = loaded(copy)
    file["protections"]["1"][name] = moved(file["protections"]["1"][name])
    written(copy, sealed(file))
    row = {"pretrain_seconds": "protect_seconds_ratio"}.get(name, name)
    assert any(f"protections.1.{name} = " in line or f"rows.target.dense.{row} = " in line for line in validate(copy))


def test_what_no_number_rests_on_is_found_by_the_hash_of_the_file(copy: Path) -> None:
    for place in (("protections", "1", "pretrain_flops"), ("versions", "ntbench"), ("device",)):
        file = loaded(copy)
        value: Any = file
        for key in place:
            value = value[key]
        put(file, place, 7 if isinstance(value, int) else "other")
        written(copy, file)
        assert any("checksum = " in line and "edited or damaged" in line for line in validate(copy)), place


def test_every_plain_value_of_a_file_is_under_its_hash(copy: Path) -> None:
    file = loaded(copy)
    for place, value in leaves(file):
        if place != ("checksum",) and isinstance(value, bool | int | float):
            put(file, place, moved(value))
            assert sealed(file)["checksum"] != file["checksum"], place
            put(file, place, value)


def test_what_no_key_covers_is_that_of_the_suite_that_comes_with_ntbench(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Speed-ups rest on plateaus, verdicts on the permitted drop; a forger would edit all files alike."""
    known = Board.read(copy / "tiny").suite
    (task,) = known.tasks
    low = task.model_copy(update={"levels": tuple(at.model_copy(update={"plateau": 0.3}) for at in task.levels)})
    monkeypatch.setattr("ntbench.leaderboard.validate.suite_names", lambda: ["tiny"])
    told = {"tasks": r"suite\.tasks\.\S+ = .*plateau=", "max_drop": r"suite\.max_drop = 0\.02: tiny-1 has 0\.01"}
    for change in ({}, {"tasks": (low,)}, {"max_drop": 0.01}):
        shipped = known.model_copy(update=change)
        monkeypatch.setattr("ntbench.leaderboard.validate.load_suite", lambda name, shipped=shipped: shipped)
        found = validate(copy)
        assert bool(found) == bool(change) and all(re.search(told[name], line) for name in change for line in found)


def test_a_column_that_the_cells_do_not_give_is_named(copy: Path) -> None:
    file = loaded(copy)
    file["rows"][0]["trials"] = 64
    found = validate(Path(written(copy, sealed(file)).parents[2]))
    assert any("trials = 64: the cells give None" in line for line in found)


@pytest.mark.parametrize("name", ["max_drop", "horizon", "seeds", "levels", "summary", "paper"])
def test_an_edited_suite_is_found(copy: Path, name: str) -> None:
    path = copy / "tiny/suite.json"
    file = json.loads(path.read_bytes())
    edits: dict[str, Callable[[Files], object]] = {
        "max_drop": lambda s: s.update(max_drop=0.5),
        "horizon": lambda s: s.update(horizon=4.0),
        "seeds": lambda s: s.update(seeds=[0, 1, 2, 3]),
        "levels": lambda s: s["tasks"][0]["levels"][0].update(plateau=0.9),
        "summary": lambda s: s.update(summary="better"),
        "paper": lambda s: s["paper"].update(attack="strong {x}"),
    }
    edits[name](file["suite"])
    path.write_text(json.dumps(file), encoding="utf-8")
    assert any("suite.json: checksum = " in line for line in validate(copy))


def attack_left_out(file: Files) -> None:
    gone = next(k for k, a in enumerate(file["attacks"]) if a["spec"]["label"] == "weak")
    columns = unpacked(file["columns"])
    kept = [k for k, cell in enumerate(file["cells"]) if cell[0] != gone]
    file["columns"] = packed([columns[k] for k in kept])
    file["cells"] = [file["cells"][k] for k in kept]


def without_images(file: Files) -> None:
    attack_left_out(file)
    file["correct"] = ""
    for cell in file["cells"]:
        cell[POSITION["bits"]] = 0


def without_reason(file: Files) -> None:
    for cell in file["cells"]:
        cell[POSITION["error"]] = 0


CORRUPTIONS: dict[str, tuple[str, Callable[[Files], object], str]] = {
    "attack left out": ("sophon", without_images, r"cells: 'weak' \(dense\) is missing 10 times, first at 10 samples"),
    "no reason": ("none", without_reason, r"cells \(weak, keep, .*\): does not apply, without a reason"),
    "versions missing": ("ntp", lambda f: f.update(versions={}), r"versions = \{\}: says not what"),
    "no ntbench": ("ntp", lambda f: f.update(versions={"torch": "2"}), "lacks `ntbench`"),
    "no data": ("ntp", lambda f: f.update(data={}), r"data = \{\}: says not what"),
    "other data": ("ntp", lambda f: f.update(data={"b/test": "beef"}), "results on different data are mixed"),
    "no device": ("ntp", lambda f: f.update(device=""), "device = ''"),
    "rows left out": ("ntp", lambda f: f["rows"].pop(), r"rows = \[\('target', 'dense'\)\]: the cells give"),
    "unknown field": ("ntp", lambda f: f.update(rank=1), "rank = 1: .*correct it"),
    "unknown column": ("ntp", lambda f: f["rows"][0].update(best=1), r"rows.*\['best'\] are missing or unknown"),
    "score above 1": ("ntp", lambda f: f.update(test_of=30), r"cells\.\d+ \(.*a score is above 1"),
    "negative": ("ntp", lambda f: f["cells"][0].__setitem__(7, -1), "cells.0.paid = -1"),
    "no columns": ("ntp", lambda f: f.update(columns=packed([])), "cells do not fit the file"),
    "damaged columns": ("ntp", lambda f: f.update(columns="?"), "cells do not fit the file"),
    "damaged images": ("ntp", lambda f: f.update(correct=""), "cells do not fit the file"),
    "repeated cell": ("ntp", lambda f: f["cells"].append(f["cells"][0]), "cells do not fit the file"),
    "edited text": ("none", lambda f: f.update(texts=["", "x"]), r"cells\.\d+ \(.*is not what was published"),
    "size": ("ntp", lambda f: f.update(device="x" * MAX_BYTES), "size = "),
    "no row of the suite": ("ntp", lambda f: f["defense"].update(name="tar"), r"defense = 'ntp' \(tar\): is no row"),
    "mark": ("ntp", lambda f: f.update(verified=[{"version": "1", "date": "today", "cells": ["a"]}]), "date = 'today'"),
    "mark of no cell": (
        "ntp",
        lambda f: f.update(verified=[{"version": "1", "date": "2030-01-01", "cells": ["a"]}]),
        "verified = 'a': no cell of the file has this key",
    ),
}


@pytest.mark.parametrize(("defense", "edit", "problem"), CORRUPTIONS.values(), ids=CORRUPTIONS.keys())
def test_a_corrupted_file_is_caught(copy: Path, defense: str, edit: Callable[[Files], object], problem: str) -> None:
    file = loaded(copy, defense)
    edit(file)
    written(copy, sealed(file), defense)
    found = validate(copy)
    assert any(re.search(problem, line) for line in found), found


@pytest.mark.parametrize("row", ["scratch", "none", "sophon"])
def test_a_missing_row_is_named(copy: Path, row: str) -> None:
    (copy / "tiny" / row / "a-b.json").unlink()
    what = "its baseline" if row == "scratch" else "a row"
    found = validate(copy)
    assert any(f"tiny/{row}/a-b.json: missing, {what} of the suite" in line for line in found)
    if row != "sophon":
        assert any("ntp/a-b.json: rows.target.dense.leak = " in line for line in found)


def places(copy: Path) -> Iterator[tuple[Path, str]]:
    yield copy / "tiny/other/a-b.json", "belongs at 'tiny/ntp/a-b.json'; move the file"
    yield copy / "tiny/ntp/a-c.json", "belongs at 'tiny/ntp/a-b.json'; move the file"
    yield copy / "tiny/a-b.json", "no published file has this place"
    yield copy / "tiny/ntp/deep/a-b.json", "no published file has this place"


@pytest.mark.parametrize("k", range(4))
def test_a_file_in_the_wrong_place_is_caught(copy: Path, k: int) -> None:
    place, problem = list(places(copy))[k]
    place.parent.mkdir(exist_ok=True)
    (copy / "tiny/ntp/a-b.json").rename(place)
    found = validate(copy)
    assert any(str(place) in line and problem in line for line in found), found


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": NaN}', "\xff", "null"])
@pytest.mark.parametrize("name", ["ntp/a-b.json", "suite.json"])
def test_a_file_that_is_no_published_file_is_caught(copy: Path, text: str, name: str) -> None:
    (copy / "tiny" / name).write_bytes(text.encode("latin-1"))
    assert any(f"tiny/{name}: " in line for line in validate(copy))
    with pytest.raises(UserError, match=re.escape(f"tiny/{name}")):
        render(copy)


def test_a_folder_without_its_suite_and_a_missing_folder_are_problems(copy: Path) -> None:
    (copy / "tiny/suite.json").unlink()
    assert any("suite.json: missing; publish the board again" in line for line in validate(copy))
    (line,) = validate(copy / "nowhere")
    assert "no such folder" in line
    (copy / "empty").mkdir()
    assert validate(copy / "empty") == []
