"""The small board, published once."""

import shutil
from pathlib import Path

import pytest
from ntbench.leaderboard.publish import publish
from small_board import GAIN, small_results, small_suite


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder; tests must not change it."""
    folder = tmp_path_factory.mktemp("leaderboard")
    paths = publish(small_results(), small_suite(), folder)
    files = [folder / "tiny" / name / "a-b.json" for name in GAIN]
    assert sorted(paths) == sorted([*files, folder / "tiny/suite.json"])
    return folder


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    """A results folder that a test may change."""
    return Path(shutil.copytree(published, tmp_path / "results"))
