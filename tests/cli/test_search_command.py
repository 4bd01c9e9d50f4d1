"""`ntbench attack`: the search as a command."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from conftest import Cli

from ntbench.engine.store import Store

SEARCH = ("attack", "magnitude", "--suite", "smoke", "--budget", 12, "--seed", 0)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, ntbench: Cli) -> Path:
    folder = tmp_path_factory.mktemp("search") / "run"
    done = ntbench(*SEARCH, "--jobs", 1, "--out", folder)
    assert done.returncode == 0 and "magnitude" in done.stdout, done.stdout + done.stderr
    return folder


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "report" / "results.csv", comment="#")


def test_every_cell_says_what_was_chosen_and_spends_the_budget(searched: Path) -> None:
    cells = table(searched)
    ran = cells[cells.status == "ok"]
    assert set(cells.defense) == {"none", "scratch", "magnitude"} and set(cells.attack) == {"auto"}
    found = ran.choice != "as released"
    assert ran.choice.notna().all() and found.any() and (ran[found].steps == 12).all()
    assert (ran[~found].steps == 6).all(), "where nothing beats the release, nothing is worth a longer run"
    assert set(cells[cells.status == "inapplicable"].defense) == {"none", "scratch"}, "they release no mask to keep"
    assert set(ran[ran["mask"] == "keep"].defense) == {"magnitude"}


def test_other_workers_find_the_same(searched: Path, tmp_path: Path, ntbench: Cli) -> None:
    assert ntbench(*SEARCH, "--jobs", 3, "--out", tmp_path / "run").returncode == 0
    timing = ["seconds", "cell_seconds", "pretrain_seconds", "protect_seconds", "peak_mb"]
    one, three = (table(folder).drop(columns=timing) for folder in (searched, tmp_path / "run"))
    pd.testing.assert_frame_equal(one, three)


def test_the_same_command_goes_on(searched: Path, ntbench: Cli) -> None:
    before = Store(searched).statuses()
    done = ntbench(*SEARCH, "--out", searched)
    assert "nothing to do" in done.stdout and Store(searched).statuses() == before


def test_less_than_one_run_is_refused(tmp_path: Path, ntbench: Cli) -> None:
    done = ntbench(*SEARCH[:5], 5, "--out", tmp_path / "run")
    assert done.returncode == 2 and "--budget 5: a single run of smoke takes 6 steps" in done.stderr
    assert not (tmp_path / "run").exists()
