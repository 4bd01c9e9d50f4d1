"""What `ntbench new` writes keeps the contract, and `pytest --ntbench` examines a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ntbench.checks.contract import examine
from ntbench.checks.skeleton import begin
from ntbench.errors import UserError
from ntbench.registry import Registry
from ntbench.types import Kind


@pytest.mark.parametrize("kind", ["defense", "attack"])
def test_a_beginning_keeps_the_contract(own_registry: Registry, tmp_path: Path, kind: Kind) -> None:
    method, test = begin(kind, "my_method", tmp_path / "new")
    (cls,) = own_registry.load_plugin(str(method))
    assert (cls.kind, cls.name) == (kind, "my_method")
    findings = list(examine(cls(**cls.quick)))
    assert [f for f in findings if f.status != "ok"] == [] and len(findings) > 15
    compile(test.read_text(), str(test), "exec")


MISTAKES = {
    "taken": ("ntl", "defense 'ntl' is there already; choose another name"),
    "no name": (
        "My-Defense",
        "'My-Defense' cannot be a method's name; give a lower snake case name such as my_defense",
    ),
    "private": ("_mine", "'_mine' cannot be a method's name"),
    "there": ("mine", "mine.py' exists; choose another name or --to folder"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.py").write_text("kept")
    given, message = MISTAKES[name]
    with pytest.raises(UserError, match=message):
        begin("defense", given, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.py"] and (tmp_path / "mine.py").read_text() == "kept"


BROKEN = '''
"""Gone: gives back a model that is not finite.

No paper.
"""
from ntbench.method import Defense, register

@register
class Gone(Defense):
    """Break the head."""
    name = "gone"
    expected_failures = {"check_repeats": "it was expected to"}

    def protect(self, model, ctx):
        model.get_classifier().weight.data.fill_(float("nan"))
        return model
'''


def test_pytest_examines_a_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "gone.py").write_text(BROKEN)
    (tmp_path / "test_other.py").write_text("def test_other():\n    assert False\n")
    command = [sys.executable, "-m", "pytest", "-q", "-rfx", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, "--ntbench", "gone.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED gone.py::gone-check_finite" in done.stdout and "test_other" not in done.stdout
    assert "gone-check_named_as_its_file" not in done.stdout
    none = subprocess.run([*command, "--ntbench", "none.py"], cwd=tmp_path, capture_output=True, text=True)
    assert none.returncode == 4 and "--ntbench" in none.stderr and "there is no such file" in none.stderr
