"""A finished run of a part of `generation_smoke`, computed once in one process; its models make few images."""

from pathlib import Path

import pytest
import torch
from board_fixtures import write_run
from filelock import FileLock

from ntbench.engine import likeness
from ntbench.engine.plan import plan
from ntbench.engine.runner import Runner
from ntbench.engine.store import Store
from ntbench.suite import Limits, Suite, load_suite

MADE = 40
ROWS = ("none", "scratch", "sophon_generation")


def smaller(suite: Suite) -> Suite:
    """Return the suite with three rows and one attack."""
    rows = tuple(entry for entry in suite.defenses if entry.name in ROWS)
    return suite.model_copy(update={"defenses": rows, "attacks": suite.attacks[:1]})


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let models that are made in this test make as many images as those of the run."""
    monkeypatch.setattr(likeness, "MADE", MADE)


@pytest.fixture(scope="session")
def generation(shared: Path, cache: Path) -> Path:
    """The folder of the run with its artifacts; tests must not change it."""
    folder = shared / "generation"
    with FileLock(shared / "generation.lock"):
        if not folder.exists():
            suite = smaller(load_suite("generation_smoke"))
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(likeness, "MADE", MADE)
                runner = Runner(Store(folder), torch.device("cpu"), Limits(), cache)
                write_run(folder, suite, [runner.run(cell) for cell in plan(suite)])
    return folder
