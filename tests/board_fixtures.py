"""The small board, published once."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from ntbench.leaderboard.publish import publish
from small_board import GAIN, small_results, small_suite

from ntbench.engine.manifest import Manifest
from ntbench.engine.store import Store
from ntbench.suite import Suite
from ntbench.types import Result


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


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The board as the folder of a run; tests must not change it."""
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, small_suite(), small_results())
    return folder


def write_run(folder: Path, suite: Suite, results: Sequence[Result]) -> None:
    """Write the folder of a run that gave these results."""
    store = Store(folder)
    for result in results:
        store.add(result)
    cells = {json.dumps(result.cell.coordinates): result.cell.key for result in results}
    Manifest(suite=suite, request="r", sources={}, cells=cells, asked=tuple(cells.values())).write(folder)
