"""`ntbench check` survives what it examines."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
METHOD = '''"""Planted: {title}. No paper."""

import os

from ntbench.method import Defense, register


@register
class Planted(Defense):
    """Planted."""

    name = "planted"

    def protect(self, model, ctx):
        {body}
'''


def planted(folder: Path, body: str) -> Path:
    file = folder / "planted.py"
    file.write_text(METHOD.format(title="for a test", body=body), encoding="utf-8")
    return file


@pytest.mark.parametrize("body", ["os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_a_method_that_ends_its_process_breaks_the_contract(ntbench: Cli, tmp_path: Path, body: str) -> None:
    done = ntbench("check", planted(tmp_path, body))
    assert done.returncode == 1
    assert "it ended the process that examined it" in done.stdout


def test_a_sound_method_keeps_it(ntbench: Cli, tmp_path: Path) -> None:
    done = ntbench("check", planted(tmp_path, "return model"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "planted keeps the contract" in done.stdout


def test_an_unknown_name_is_one_message(ntbench: Cli) -> None:
    done = ntbench("check", "sophn")
    assert done.returncode == 2
    assert done.stderr.strip() == "error: unknown method 'sophn'; did you mean 'sophon'?"
