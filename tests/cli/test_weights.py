from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from anyones import SIZE, Owner, owner

from ntbench.engine import calibrate
from ntbench.engine.session import open_run

Attack = Callable[..., Any]
Inside = Callable[..., Any]

SUITE = """
name = "mine"
version = 1
summary = "two attacks"
seeds = [0]
horizon = 1
paper = { attack = "finetune" }
arch = { name = "cnn_bn" }
pretrain = { steps = 3 }
tasks = [{ source = "digits", target = "digits_m", levels = [{ samples = 12 }, { samples = 48 }] }]
defenses = [{ name = "none" }, { name = "magnitude" }]

[[attacks]]
name = "finetune"
params = { batch_size = 8 }

[[attacks]]
name = "finetune"
params = { mask = "keep" }
against = ["magnitude"]
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Owner:
    found = owner(tmp_path_factory.mktemp("owner"))
    (found.source.parent / "mine.toml").write_text(SUITE)
    return found


@pytest.fixture
def attack(mine: Owner, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> Attack:
    """Attack in this process, with budgets of a few steps."""
    monkeypatch.setattr(calibrate, "GUESS", 1.0)
    monkeypatch.setattr(calibrate, "LONGEST", 1.0)
    place = ["--arch", "cnns_bn", "--source", mine.source, "--target", mine.target, "--size", SIZE]
    return partial(inside, "attack", *place)


def quick(mine: Owner, out: Path) -> list[object]:
    return ["--suite", mine.source.parent / "mine.toml", "--samples", 6, "--samples", 18, "--jobs", 1, "--out", out]


def test_weights_on_disk_end_in_the_sentence_the_table_and_the_page(
    attack: Attack, mine: Owner, tmp_path: Path
) -> None:
    given = [mine.release, "--undefended", mine.clean, "--source-accuracy", 0.9, "--seeds", 2, *quick(mine, tmp_path)]
    done = attack(*given)
    assert done.exit_code == 0, done.output
    assert "release.safetensors: 100.0% right on the 8 test images of source" in done.output
    assert "source to target: " in done.output and f"report: {tmp_path}/report/index.html" in done.output
    board = pd.read_csv(tmp_path / "report" / "leaderboard.csv").set_index("defense")
    assert set(board.index) == {"none", "scratch", "release"}
    assert (board.loc["release", "source_before"], board.loc["none", "drop"]) == (1.0, 0.0)
    assert board.loc["release", "interval"] == "range over attack seeds alone"
    page = (tmp_path / "report" / "index.html").read_text()
    assert "over attack seeds alone, on one file each" in page
    assert str(mine.release.parent) not in page and "clean.pt" in page
    assert {cell.arch.name for cell in (r.cell for r in open_run(tmp_path, None).results())} == {"cnns_bn"}  # type: ignore[arg-type]
    again = attack(*given)
    assert again.exit_code == 0 and "nothing to do: all 12 cells" in again.output


def test_without_undefended_weights_the_rest_is_told_and_what_is_missing(
    attack: Attack, mine: Owner, tmp_path: Path
) -> None:
    done = attack(mine.release, "--public", mine.clean, "--seeds", 1, *quick(mine, tmp_path))
    assert done.exit_code == 0, done.output
    missing = "o undefended weights are given, so that there is neither leak nor verdict"
    assert "release adds " in done.output and f"N{missing}." in done.output
    assert f"transfers: n{missing}; name them as `undefended`" in done.output
    board = pd.read_csv(tmp_path / "report" / "leaderboard.csv").set_index("defense")
    assert set(board.index) == {"scratch", "public", "release"}
    row = board.loc["release"]
    assert pd.notna(row["uplift"]) and pd.isna([row["leak"], row["drop"]]).all() and row["verdict"] == "none"
    page = (tmp_path / "report" / "index.html").read_text()
    assert f"N{missing}" in page and "not given, so that" in page


MISTAKES: dict[str, tuple[list[object], str]] = {
    "no file": (["{tmp}/none.pt"], "none.pt' does not exist"),
    "another network": (["{release}", "--arch", "cnn_bn"], "they fit 'cnns_bn' with 3 classes"),
    "no network": (["{release}", "--arch", "resnet81"], "unknown architecture 'resnet81'; did you mean 'resnet"),
    "the folders exchanged": (["{release}", "--source", "{target}"], "has 3 classes and the source 2: give the images"),
    "a damaged file": (["{damaged}"], "cannot be read as safetensors"),
    "an object": (["{object}"], "no object is ever unpickled; save `model.state_dict()` alone"),
    "no folder": (["{release}", "--target", "{tmp}/none"], "none' does not exist; give a folder of images by class"),
    "no domain": (
        ["{release}", "--target", "digitz"],
        "'digitz' is no folder here, and an unknown domain 'digitz'; did you",
    ),
    "mean alone": (["{release}", "--mean", 0.5, 0.5, 0.5], "give `mean` and `std` together"),
    "one count": (["{release}", "--samples", 6], "--samples 6: a curve needs two counts or more"),
    "too many samples": (
        ["{release}", "--samples", 6, "--samples", 999],
        "--samples 999: the target has 21 training images",
    ),
    "a dry run of another network": (["{release}", "--arch", "cnn_bn", "--dry-run"], "they fit 'cnns_bn' with 3 cl"),
    "an argument": (["{release}", "--arch-param", "img_size"], "write NAME=VALUE, for example patch_size=4"),
    "far below": (["{noise}", "--source-accuracy", 0.99], "and its owner states 99.0%"),
    "seeds": (["{release}", "{release}", "--seeds", 3], "seed 2: 2 files of one defense"),
    "a suite": (["{release}", "--suite", "smok"], "unknown suite 'smok'; did you mean 'smoke'?"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_one_message_without_a_traceback(kind: str, attack: Attack, mine: Owner, tmp_path: Path) -> None:
    words, message = MISTAKES[kind]
    files = {name: tmp_path / name for name in ("damaged", "object", "noise")}
    files["damaged"].write_bytes(mine.release.read_bytes()[:-9])
    torch.save(torch.nn.Linear(1, 1), files["object"])
    torch.save({n: -w if w.ndim > 1 else w for n, w in torch.load(mine.clean)["state_dict"].items()}, files["noise"])
    places = {"tmp": tmp_path, "release": mine.release, "target": mine.target} | files
    done = attack(*(str(word).format(**places) for word in words), "--out", tmp_path / "run")
    assert done.exit_code == 2, done.output
    assert message in done.stderr and "Traceback" not in done.output
