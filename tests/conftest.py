"""Shared by all tests: a cache of data sets and a finished run of `smoke`, made once for every pytest process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from typer.testing import CliRunner

from ntbench.cli import app
from ntbench.cli.app import console
from ntbench.engine.foreign import Door
from ntbench.engine.plan import plan
from ntbench.engine.runner import Runner
from ntbench.engine.store import Store
from ntbench.registry import Registry, registry
from ntbench.suite import AttackEntry, DefenseEntry, Limits, PaperSetting, Suite
from ntbench.types import Arch, Budget, Cell, MethodSpec, Task, Training

# The small published board of the leaderboard's tests, and a small run of generation.
pytest_plugins = ["board_fixtures", "generation_fixtures"]

# Results in this process must match those of workers, which run on one thread.
torch.set_num_threads(1)
# The same examples every time, however slow the machine is.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
Inside = Callable[..., Any]
LEVELS = ({"samples": 12, "t90": 0.5, "plateau": 0.3}, {"samples": 48, "t90": 0.5, "plateau": 0.4})
"""Budgets of 1, 2 and 4 steps."""


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all pytest-xdist workers see."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def cache(shared: Path) -> Path:
    """The data cache of this session; no test reads or writes the user's own."""
    folder = shared / "cache"
    os.environ["NTBENCH_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def ntbench(cache: Path) -> Cli:
    """Run the command line in a process of its own."""

    def run(*arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from ntbench.cli import main; main()", *map(str, arguments)]
        # A wide terminal, so that messages stand on one line.
        environment = os.environ | {"COLUMNS": "400", "NO_COLOR": "1"}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)

    return run


@pytest.fixture(scope="session")
def smoke(shared: Path, ntbench: Cli) -> Path:
    """The folder of a finished run of `smoke` by one worker; tests must not change it."""
    folder = shared / "smoke"
    with FileLock(shared / "smoke.lock"):
        if not (shared / "smoke.done").exists():
            done = ntbench("run", "smoke", "--jobs", 1, "--out", folder)
            assert done.returncode == 0, done.stdout + done.stderr
            (shared / "smoke.done").touch()
    return folder


@pytest.fixture
def tiny() -> Suite:
    """A suite of one task, one control, one attack and two cells, small enough to compute inside a test."""
    return Suite.model_validate(
        {
            "name": "tiny",
            "version": 1,
            "summary": "two cells",
            "seeds": [0],
            "paper": {"attack": "finetune"},
            "arch": {"name": "cnns_bn"},
            "pretrain": {"steps": 3, "batch_size": 16},
            "tasks": [{"source": "digits", "target": "digits_m", "image_size": 8, "levels": LEVELS}],
            "defenses": [{"name": "none"}],
            "attacks": [{"name": "finetune", "params": {"batch_size": 8}}],
        }
    )


def _spec(kind: Any, name: str, **params: Any) -> MethodSpec:
    return MethodSpec(kind=kind, name=name, version=1, code="0" * 16, params=params, label=name)


@pytest.fixture
def cell() -> Cell:
    """A recipe that no method needs to stand behind."""
    return Cell(
        protocol="tiny-1",
        task=Task.model_validate({"source": "digits", "target": "digits_m", "image_size": 8, "levels": LEVELS}),
        arch=Arch(name="cnns_bn"),
        pretrain=Training(steps=3),
        budget=Budget(t90=0.5),
        defense=_spec("defense", "none"),
        attack=_spec("attack", "finetune", lr=0.01, mask="dense"),
        samples=12,
        seed=0,
    )


@pytest.fixture(autouse=True)
def door(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the registry's door as it is: a command that runs in this process opens it for foreign code."""
    monkeypatch.setattr(registry, "door", registry.door)


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The registry, whose additions end with the test: others go over all methods and must not meet them."""
    registry.discover()
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    return registry


@pytest.fixture
def foreign(own_registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The registry behind its door."""
    monkeypatch.setattr(own_registry, "door", Door())
    monkeypatch.setattr(own_registry, "_loaded", {})
    return own_registry


@pytest.fixture
def inside(own_registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Inside:
    """Run the command line in this process, which costs no imports, on a terminal of 400 columns."""
    # Where the environment says COLUMNS when the console is made, as pytest-xdist has it, that width stays.
    monkeypatch.setattr(console, "_width", 400)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("NO_COLOR", "1")
    return lambda *words: CliRunner().invoke(app, list(map(str, words)))


@pytest.fixture
def runner(tmp_path: Path, cache: Path) -> Runner:
    limits = Limits(cell_seconds=600, protect_seconds=600)
    return Runner(Store(tmp_path / "run"), torch.device("cpu"), limits, cache)


@pytest.fixture
def cells(tiny: Suite) -> Callable[..., list[Cell]]:
    """The two cells of any defense and attack on the grid of `tiny`."""

    def planned(defense: str = "none", attack: str = "finetune", **params: dict[str, Any]) -> list[Cell]:
        usual = {"batch_size": 8} if attack == "finetune" else {}
        entries = {
            "defenses": (DefenseEntry(name=defense, params=params.get("defense_params", {})),),
            "attacks": (AttackEntry(name=attack, params=params.get("attack_params", usual)),),
            "paper": PaperSetting(attack=attack),
        }
        return plan(tiny.model_copy(update=entries))

    return planned
