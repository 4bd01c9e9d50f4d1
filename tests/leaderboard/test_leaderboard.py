"""Published rows: written, checked, rendered, and every kind of corruption caught."""

import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fabricated
import numpy as np
import pytest
from fabricated import SEEDS, outcome, recipe
from ntbench.leaderboard.render import render
from ntbench.leaderboard.schema import MAX_BYTES, publish, validate

from ntbench.errors import UserError
from ntbench.suite import Suite
from ntbench.types import Protection, Provenance, Result

RATIOS = (0.01, 1.0)
# Accuracy at each ratio under the strong attack; the weak one gives 0.1 less.
LEVELS = {"scratch": 0.5, "none": 0.8, "good": 0.3, "ntp": 0.6}
Edit = Callable[[dict[str, Any]], object]


def suite(**changes: Any) -> Suite:
    values = {
        "version": 2,
        "ratios": RATIOS,
        "defenses": [{"name": name} for name in LEVELS],
        # A brace in a label is text in a published file and a field in a suite.
        "attacks": [
            {"name": "finetune", "label": name, "grid": {"mask": ["dense", "keep"]}}
            for name in ("weak", "strong {{x}}")
        ],
    }
    return fabricated.suite(**values | changes)


def result(defense: str, mask: str, attack: str, ratio: float, seed: int) -> Result:
    final = LEVELS[defense] - 0.1 * (attack == "weak") - 0.2 * (mask == "keep") + 0.01 * seed
    return outcome(
        recipe(defense, attack, ratio, seed, mask=mask, protocol="tiny-2"),
        (*(0.1,) * 5, final),
        protection=Protection(source_before=0.99, source_after=0.98, pretrain_seconds=2.0, protect_seconds=4.0),
        provenance=Provenance(data={"b/test": "feed"}, versions={"ntbench": "0.1.0"}, device="cpu"),
    )


def results() -> list[Result]:
    rows = [*((name, "dense") for name in LEVELS), ("ntp", "keep")]
    attacks = ("weak", "strong {x}")
    return [result(*row, a, n, seed) for row in rows for a in attacks for n in RATIOS for seed in SEEDS]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leaderboard")
    paths = publish(results(), suite(), folder)
    assert sorted(paths) == sorted(folder / "tiny" / name / "a-b.json" for name in LEVELS)
    return folder


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "results"))


def test_sound_rows_have_no_problems(published: Path) -> None:
    assert validate(published) == []


def test_the_same_results_give_the_same_bytes_in_any_order(published: Path, tmp_path: Path) -> None:
    shuffled = results()
    random.Random(0).shuffle(shuffled)
    for path in publish(shuffled, suite(), tmp_path):
        text = path.read_bytes()
        assert text == (published / path.relative_to(tmp_path)).read_bytes()
        assert len(text) < MAX_BYTES
        assert json.dumps(json.loads(text), sort_keys=True) == json.dumps(json.loads(text))


def test_files_hold_numbers_and_the_closed_forms(published: Path) -> None:
    file = json.loads((published / "tiny/ntp/a-b.json").read_bytes())
    rows = {row["mask"]: row for row in file["rows"]}
    span = np.log(100)
    assert rows["dense"]["metrics"]["slc"] == pytest.approx(0.1 * span, abs=1e-6)
    assert rows["keep"]["metrics"]["slc"] == pytest.approx(-0.1 * span, abs=1e-6)
    assert rows["dense"]["metrics"]["drop"] == pytest.approx(0.01)
    assert rows["dense"]["metrics"]["zero_shot"] is None
    assert {type(value) for row in rows.values() for value in row["metrics"].values()} <= {float, type(None)}
    assert len(file["cells"]) == 24
    assert {cell[-1] for cell in file["cells"]} == {r.cell.key for r in results() if r.cell.defense.name == "ntp"}


def test_a_failed_cell_is_published_without_accuracies(tmp_path: Path) -> None:
    found = results()
    found[0] = found[0].model_copy(update={"status": "diverged", "error": "nan"})
    publish(found, suite(), tmp_path)
    assert validate(tmp_path) == []
    file = json.loads((tmp_path / "tiny" / found[0].cell.defense.label / "a-b.json").read_bytes())
    assert [cell[4:8] for cell in file["cells"] if cell[4] != "ok"] == [["diverged", None, None, None]]
    assert file["rows"][0]["failed"] == 1


def test_the_page_is_ranked_with_both_settings_side_by_side(published: Path) -> None:
    page = render(published)
    lines = [line.split(" | ") for line in page.splitlines() if re.match(r"\| (\d|-) ", line)]
    assert [(line[0][2:], line[1], line[2]) for line in lines] == [
        (r"1 \[1, 1\]", "good", "dense"),
        (r"2 \[2, 2\]", "ntp", "dense"),
        ("-", "ntp", "keep"),
        (r"3 \[3, 3\]", "none (control)", "dense"),
        ("-", "scratch (control)", "dense"),
    ]
    span = np.log(100)
    assert lines[0][3].startswith(f"{-0.2 * span:+.2f}")
    assert lines[0][4].startswith("&gt;"), "the overhead in the paper's setting"
    assert lines[0][5] == f"{-0.2 * span:+.2f}", "the best of the grid"
    assert lines[0][6].startswith(f"{-0.2 * span:+.2f}"), "the worst case: without auto it has no column"
    assert "tiny-2: a-b" in page
    assert "**Worst case: SLC-AUC**" in page
    assert "nan" not in page.lower()


def test_rendering_needs_no_torch_and_no_figures() -> None:
    code = "import sys, ntbench.leaderboard.render; print({'torch', 'seaborn', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def metric(name: str, value: object, row: int = 0) -> Edit:
    return lambda file: file["rows"][row]["metrics"].__setitem__(name, value)


def field(name: str, value: object) -> Edit:
    return lambda file: file.__setitem__(name, value)


def cell(position: int, value: object) -> Edit:
    return lambda file: file["cells"][0].__setitem__(position, value)


CORRUPTIONS: dict[str, tuple[Edit, str]] = {
    "schema version": (field("schema_version", 1), "schema_version = 1"),
    "unknown field": (field("rank", 1), "rank = 1"),
    "missing field": (lambda file: file.pop("budget"), "budget = "),
    "number as text": (metric("slc", "> 4.8"), "rows.0.metrics.slc = '> 4.8'"),
    "infinite number": (metric("slc", float("inf")), "rows.0.metrics.slc"),
    "missing metric": (lambda file: file["rows"][0]["metrics"].pop("slc"), r"\['slc'\] are missing or unknown"),
    "unknown metric": (metric("score", 1.0), r"\['score'\] are missing or unknown"),
    "percent": (metric("source_after", 98.0), "source_after = 98.0: a fraction"),
    "percent of a cell": (cell(6, 60.0), "cells.0.test = 60.0"),
    "negative cost": (metric("overhead_steps_90", -1.0), "overhead_steps_90 = -1.0: a cost"),
    "impossible drop": (metric("drop", -3.0), "drop = -3.0"),
    "outside its interval": (metric("drop_low", 0.5), "drop = 0.01: lies outside"),
    "unearned claim": (lambda file: file["rows"][0].__setitem__("holds", True), "holds = True"),
    "key": (cell(8, "0" * 16), "cells.0.key = '0000000000000000'"),
    "recipe": (lambda file: file["defense"].__setitem__("params", {"lr": 1}), "cells.0.key"),
    "seed": (cell(3, 7), "cells.0.key"),
    "attack index": (cell(0, 99), r"cells.attack = \[99\]"),
    "status": (cell(4, "timeout"), "cells.0.status = 'timeout'"),
    "accuracy of a cell": (lambda file: file["cells"][-1].__setitem__(6, 0.123), r"rows\.keep\.slc "),
    "last accuracy of a cell": (cell(7, 0.123), "rows.dense.paper_slc"),
    "lacking accuracy": (cell(7, None), "cells.0.status = 'ok'"),
    "other rule": (lambda file: file["rows"][0].__setitem__("selection", "oracle"), "rows.0.selection = 'oracle'"),
    "grid": (metric("grid_slc_low", -9.0), "rows.dense.grid_slc_low"),
    "negative steps": (metric("grid_steps", -1.0), "grid_steps = -1.0: a cost"),
    "precision": (field("precision", "bfloat16"), "cells.0.key"),
    "slc": (
        lambda file: file["rows"][0]["metrics"].update(slc=0.3, slc_low=0.3, slc_high=0.3),
        "rows.dense.slc = 0.3: the cells, against those of scratch, give",
    ),
    "interval": (metric("slc_low", 0.2), "rows.dense.slc_low"),
    "strongest attack": (lambda file: file["rows"][0].__setitem__("worst_attack", "weak"), "worst_attack = 'weak'"),
    "rank of both rows": (lambda file: file["rows"][1].__setitem__("ranked", True), "rows.keep.ranked = True"),
    "count": (lambda file: file["rows"][0].__setitem__("failed", 1), "rows.dense.failed = 1"),
    "dropped row": (lambda file: file["rows"].pop(), r"rows = \['dense'\]"),
    "dropped cell": (lambda file: file["cells"].pop(0), "rows.dense.cells = 12"),
    "repeated cell": (lambda file: file["cells"].append(file["cells"][0]), "two results stand for"),
    "other data": (field("data", {"b/test": "beef"}), "results on different data"),
    "other budget": (field("seeds", [0, 1]), r"seeds: .* are mixed"),
    "size": (lambda file: file["rows"][0].__setitem__("note", "x" * MAX_BYTES), "size = "),
}


@pytest.mark.parametrize(("edit", "problem"), CORRUPTIONS.values(), ids=CORRUPTIONS.keys())
def test_a_corrupted_file_is_caught(copy: Path, edit: Edit, problem: str) -> None:
    path = copy / "tiny/ntp/a-b.json"
    file = json.loads(path.read_bytes())
    edit(file)
    path.write_text(json.dumps(file), encoding="utf-8")
    found = validate(copy)
    assert any(re.search(problem, line) for line in found), found
    assert all(str(path) in line or "a-b.json" in line for line in found)


def test_a_file_in_the_wrong_place_is_caught(copy: Path) -> None:
    (copy / "tiny/other").mkdir()
    (copy / "tiny/ntp/a-b.json").rename(copy / "tiny/other/a-b.json")
    found = validate(copy)
    assert len(found) == 1
    assert re.search(r"belongs at 'tiny/ntp/a-b.json'; move the file", found[0])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": NaN}', "\xff"])
def test_a_file_that_is_no_published_row_is_caught(copy: Path, text: str) -> None:
    (copy / "tiny/ntp/a-b.json").write_bytes(text.encode("latin-1"))
    assert any("tiny/ntp/a-b.json" in line for line in validate(copy))
    with pytest.raises(UserError, match=re.escape("tiny/ntp/a-b.json")):
        render(copy)


def test_rows_without_their_scratch_curve_are_caught(copy: Path) -> None:
    (copy / "tiny/scratch/a-b.json").unlink()
    assert any("ntp/a-b.json: rows.dense.slc" in line for line in validate(copy))


def test_another_version_of_the_suite_beside_the_first_is_caught(copy: Path) -> None:
    newer = [r.model_copy(update={"cell": r.cell.model_copy(update={"protocol": "tiny-3"})}) for r in results()]
    newer = [Result.model_validate(r.model_dump()) for r in newer if r.cell.defense.name in ("scratch", "none")]
    publish(newer, suite(version=3), copy)
    assert any(re.search("protocol: tiny-. and tiny-. are mixed", line) for line in validate(copy))


def relabelled(label: str) -> list[Result]:
    found = results()
    spec = found[0].cell.defense.model_copy(update={"label": label})
    return [found[0].model_copy(update={"cell": found[0].cell.model_copy(update={"defense": spec})}), *found[1:]]


@pytest.mark.parametrize("label", ["../up", "a/b", ".hidden", "<script>", ""])
def test_a_label_that_cannot_name_a_folder_is_refused(label: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot name a folder"):
        publish(relabelled(label), suite(), tmp_path / "results")
    assert not list(tmp_path.iterdir())


def test_two_recipes_under_one_label_are_refused(tmp_path: Path) -> None:
    found = results()
    spec = found[0].cell.defense.model_copy(update={"params": {"lr": 1.0}})
    found[0] = found[0].model_copy(update={"cell": found[0].cell.model_copy(update={"defense": spec})})
    with pytest.raises(UserError, match=r"defense: .* are mixed"):
        publish(found, suite(), tmp_path)


def test_publishing_or_rendering_nothing_is_a_mistake_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results of tiny-2 to publish; run `ntbench run tiny` first"):
        publish([], suite(), tmp_path)
    with pytest.raises(UserError, match="holds no published rows; write some with `ntbench publish RUN`"):
        render(tmp_path)
    assert validate(tmp_path) == []
