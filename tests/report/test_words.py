"""A board of denoisers: its own words, the axis of compute first, and what its models make."""

from __future__ import annotations

import re
from dataclasses import replace

import boards
import pandas as pd
import pytest
import torch

from ntbench.learn.drawn import picture
from ntbench.report.page import report_files
from ntbench.report.tables import Tables
from ntbench.report.words import worded
from ntbench.types import ObjectiveSpec

TEXTS = ("csv", "html", "md", "tex")


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    suite = boards.suite(("a",), 1).model_copy(update={"objective": ObjectiveSpec(name="denoising"), "axis": "compute"})
    return report_files(drawn(boards.tables(("a",), 1)), suite, {})


def drawn(held: Tables) -> Tables:
    png = picture(torch.zeros(8, 1, 4, 4), 4)
    task, attack = boards.tasks(1)[0].name, held.leaderboard["attack"][0]
    rows = [(task, name, attack, n, seed, png, png) for name in ("a", "none") for n in (12, 60) for seed in (0, 1)]
    columns = ["task", "defense", "attack", "samples", "seed", "source", "target"]
    board = held.leaderboard.assign(frechet=12.5)
    made = pd.DataFrame(rows, columns=columns)
    return replace(held, leaderboard=board, drawn=made, agreement=boards.agreeing())


def test_no_file_speaks_of_accuracy(files: dict[str, bytes]) -> None:
    found = {name: data.decode() for name, data in files.items() if name.rpartition(".")[2] in TEXTS}
    assert len(found) > 8
    assert [name for name, text in found.items() if re.search(r"accurac|were right", text, re.IGNORECASE)] == []
    assert "score" in found["attacks.csv"].partition("\n")[0].split(",")


def test_compute_comes_first(files: dict[str, bytes]) -> None:
    text = files["index.html"].decode()
    assert text.index("Over compute.") < text.index("Over samples.")
    assert "SLC-AUC" not in re.findall(r"<thead>.*?</thead>", text, re.DOTALL)[0]
    assert {"figures/drawn-photo-sketch.png", "figures/drawn-photo-sketch.pdf"} <= files.keys()
    assert "What models make." in text and "12.50" in text
    assert {f"figures/agreement-photo-sketch{end}" for end in (".png", "-column.pdf", ".csv")} <= files.keys()
    assert "How well two scores agree." in text


def test_words_of_classifiers_stay() -> None:
    said = "Accuracy: the mean of accuracies; inaccuracy is no word of ours."
    assert worded(said, "classification") == said
    assert worded(said, "denoising") == "Score: the mean of scores; inaccuracy is no word of ours."
