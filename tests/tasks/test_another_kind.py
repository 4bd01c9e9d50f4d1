"""A third kind of task: one file beside the others and one suite, from the registry of kinds to a row of a board."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import ntbench.tasks
from ntbench.engine.plan import plan
from ntbench.engine.runner import Runner
from ntbench.learn.models import build, unpack
from ntbench.measure.board import leaderboard_table
from ntbench.suite import load_suite
from ntbench.tasks.data import load_domain
from ntbench.tasks.objective import objectives
from ntbench.types import unpack_scores

KINDS = Path(__file__).parents[1] / "kinds"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folder of the test's kind as a part of the package, as if its file lay beside the others."""
    monkeypatch.setattr(ntbench.tasks, "__path__", [*ntbench.tasks.__path__, str(KINDS)])
    objectives.cache_clear()
    yield
    objectives.cache_clear()
    sys.modules.pop("ntbench.tasks.quarters", None)


def test_a_file_and_a_suite_give_a_row(known: None, runner: Runner, cache: Path) -> None:
    assert set(objectives()) == {"classification", "denoising", "quarters"}
    suite = load_suite(str(KINDS / "quarters.toml"))
    results = [runner.run(cell) for cell in plan(suite)]
    refused = [r.error for r in results if r.cell.defense.name == "ntp"]
    assert len(refused) == 2 and set(refused) == {"ntp is written for classification, not for quarters"}
    ran = [r for r in results if r.cell.defense.name != "ntp"]
    assert {r.status for r in ran} == {"ok"}
    board = leaderboard_table(results, suite).set_index("defense")
    assert np.isfinite(board.loc[["none", "scratch"], ["uplift", "source_after"]].to_numpy(float)).all()
    learnt, fresh = (float(board["source_after"][name]) for name in ("none", "scratch"))
    assert learnt > fresh

    result = next(r for r in ran if r.cell.defense.name == "none")
    weights, facts = runner.protected(result.cell)
    images = load_domain("digits", 8, cache, 300, 40).test.x
    s = images.shape[-1] // 2
    corners = [images[..., i : i + s, j : j + s].mean(dim=(1, 2, 3)) for i in (0, s) for j in (0, s)]
    with torch.no_grad():
        answers = unpack(weights, build(result.cell.arch, 4, seed=0)).eval()(images)
    error = (answers - torch.stack(corners, dim=1)).square().mean(dim=1)
    assert facts.source_after == pytest.approx(float((-error).exp().double().mean()), rel=1e-5)
    assert unpack_scores(facts.kept, 40) == pytest.approx((-error).exp().numpy(), abs=1e-3)
