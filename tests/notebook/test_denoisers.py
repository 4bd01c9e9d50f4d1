"""A run of denoisers in a notebook: frames, verdicts and figures in its words; what takes classifiers alone says so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

import ntbench
from ntbench.errors import UserError
from ntbench.learn.models import build
from ntbench.notebook.run import Run
from ntbench.report.words import worded_frame
from ntbench.types import Arch

FRAMES = ("leaderboard", "gates", "results", "trajectories", "curves", "budgets", "attacks", "factors", "coverage")
DATA = (torch.zeros(10, 3, 8, 8), torch.arange(10) % 2)


@pytest.fixture(scope="module")
def run(generation: Path) -> Run:
    return ntbench.load(generation)


def test_no_frame_speaks_of_accuracy(run: Run) -> None:
    for name in FRAMES:
        text = getattr(run, name)().to_csv()
        assert not re.search("accurac", text, re.IGNORECASE), name
    assert "score" in run.budgets() and "score" in run.attacks() and "score" in run.factors()
    assert not re.search("accurac", run._repr_html_() + str(run.verdict("sophon_generation")), re.IGNORECASE)


def test_reasons_are_told_in_scores(run: Run) -> None:
    frame = run.leaderboard().assign(reason="unusable: source accuracy drops")
    assert set(worded_frame(frame, "denoising")["reason"]) == {"unusable: source score drops"}
    assert worded_frame(frame, "classification") is frame


def test_figures_are_drawn_in_scores(run: Run) -> None:
    axes = Figure().subplots()
    run.plot.learning_curves("sophon_generation", axes=axes)
    assert axes.get_ylabel() == "target test score"
    for figure in (run.plot.learning_curves(), run.plot.compute(), run.plot.leak(), run.plot.attacks()):
        texts = [artist.get_text() for artist in figure.findobj(Text) if isinstance(artist, Text)]
        assert texts and not re.search("accurac", " ".join(texts), re.IGNORECASE)


def test_what_takes_classifiers_alone_says_so(generation: Path) -> None:
    denoiser = build(Arch(name="unet2d", params={"block_out_channels": (8, 16)}), 1, seed=0)
    calls: list[Any] = [
        lambda: ntbench.protect("magnitude", denoiser, source=DATA),
        lambda: ntbench.attack(denoiser, source=DATA, target=DATA),
    ]
    for call in calls:
        with pytest.raises(UserError, match="a network for denoising, not for classification; name its"):
            call()
    with pytest.raises(UserError, match="sophon_generation is written for denoising, not for classification; name"):
        ntbench.protect("sophon_generation", build(Arch(name="cnns_bn"), 2, seed=0), source=DATA, target=DATA)
