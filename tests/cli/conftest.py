"""The command line in the process of the tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from ntbench.cli import app
from ntbench.cli.app import console
from ntbench.registry import Registry

Inside = Callable[..., Any]


@pytest.fixture
def inside(own_registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Inside:
    """Run the command line in this process, which costs no imports, on a terminal of 400 columns."""
    # Where the environment says COLUMNS when the console is made, as pytest-xdist has it, that width stays.
    monkeypatch.setattr(console, "_width", 400)
    monkeypatch.setenv("NO_COLOR", "1")
    return lambda *words: CliRunner().invoke(app, list(map(str, words)))
