"""A stranger's defense, from an installed package and from a single file, is listed, checked and ranked."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
PACKAGE = Path(__file__).parent / "third_party"
FILE = '''"""Damped: the head of the released model is scaled down.

No paper: the smallest defense that changes weights.
"""

import torch
from torch import nn

from ntbench.method import Context, Defense, Field, head, register


@register
class Damped(Defense):
    """Scale the head, which leaves every prediction as it is."""

    name = "damped"

    factor: float = Field(default=0.5, gt=0)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the model with a smaller head."""
        with torch.no_grad():
            for parameter in head(model).parameters():
                parameter.mul_(self.factor)
        return model
'''


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the package, without network."""
    source, target = tmp_path_factory.mktemp("source") / "package", tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    file = tmp_path / "damped.py"
    file.write_text(FILE, encoding="utf-8")
    return file


def distribution(folder: Path, name: str, module: str, text: str) -> None:
    """Lay out an installed package by hand: one module, and the metadata that names it."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[ntbench.methods]\n{name} = {module}\n")
    (folder / f"{module}.py").write_text(text, encoding="utf-8")


def test_an_installed_defense_is_listed(installed: Path, ntbench: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(installed))
    done = ntbench("list")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.split()[:1] == ["uniform"]]
    assert "predictions on unlabelled target images uniform" in line
    assert done.stderr == ""


def test_an_installed_defense_keeps_the_contract(
    installed: Path, ntbench: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(installed))
    done = ntbench("check", "uniform")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "check_uses_no_target_labels: ok" in done.stdout


def test_a_file_keeps_the_contract(plugin: Path, ntbench: Cli) -> None:
    done = ntbench("check", plugin)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "defense damped" in done.stdout


def test_a_broken_file_fails_with_the_reason(plugin: Path, ntbench: Cli) -> None:
    plugin.write_text(FILE.replace("mul_(self.factor)", "mul_(torch.rand(()))"), encoding="utf-8")
    done = ntbench("check", plugin)
    assert done.returncode == 1
    failed = [line.split(":")[0].strip() for line in done.stdout.splitlines() if "FAILED" in line]
    assert failed == ["check_ignores_global_seeds", "check_settings_are_read"]


def test_both_get_a_row(
    installed: Path, plugin: Path, ntbench: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(installed))
    asked = ("--defense", "uniform", "--plugin", plugin, "--defense", "damped")
    done = ntbench("run", "smoke", *asked, "--seed", 0, "--jobs", 2, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "run" / "report" / "leaderboard.csv").open(encoding="utf-8") as file:
        rows = {row["defense"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {"none", "scratch", "magnitude", "uniform", "damped"}
    assert all(float(rows[name]["slc"]) != 0 for name in ("uniform", "damped"))
    with (tmp_path / "run" / "report" / "results.csv").open(encoding="utf-8") as file:
        mine = [row for row in csv.DictReader(file) if row["defense"] in ("uniform", "damped")]
    assert {(row["mask"], row["status"]) for row in mine} == {("dense", "ok"), ("keep", "inapplicable")}


def test_a_broken_package_is_a_warning(ntbench: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    distribution(tmp_path, "broken", "broken_methods", "raise RuntimeError('planted')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = ntbench("list")
    assert done.returncode == 0
    assert "finetune" in done.stdout
    assert "plug-in broken_methods is left out: RuntimeError: planted" in done.stderr


def test_two_packages_of_one_name_are_an_error_that_names_both(
    ntbench: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    distribution(tmp_path, "first", "first_damped", FILE)
    distribution(tmp_path, "second", "second_damped", FILE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = ntbench("list")
    assert done.returncode == 2
    assert "'damped'" in done.stderr and "rename one" in done.stderr
    assert "first_damped.py" in done.stderr and "second_damped.py" in done.stderr
