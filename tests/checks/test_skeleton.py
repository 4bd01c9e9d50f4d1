"""What `ntbench new` writes keeps the contract, and `pytest --ntbench` examines a file."""

from __future__ import annotations

import io
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from ntbench.checks.contract import check_method, examine
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


@pytest.mark.parametrize("kind", ["domain", "metric"])
def test_the_written_test_of_a_domain_or_metric_passes(own_registry: Registry, tmp_path: Path, kind: str) -> None:
    written, test = begin(kind, "my_own", tmp_path)
    named = runpy.run_path(str(test))
    tests = [work for name, work in named.items() if name.startswith("test_")]
    for work in tests:
        work()
    assert len(tests) == 2 and own_registry.get(kind, "my_own").__name__ == "MyOwn"
    assert check_method(str(written), Console(quiet=True))


TAKEN = {
    "domain": ("usps", "domain 'usps' is there already; choose another name"),
    "metric": ("speedup", "metric 'speedup' would have the leaderboard's column 'speedup"),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_a_domain_or_metric_cannot_take_a_name_of_ours(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError, match=TAKEN[kind][1]):
        begin(kind, TAKEN[kind][0], tmp_path)
    with pytest.raises(UserError, match=f"'No' cannot be a {kind}'s name; give a lower snake case name such as my_"):
        begin(kind, "No", tmp_path)
    assert not list(tmp_path.iterdir())


METRIC = """
from random import random
from ntbench.method import Metric, register

@register
class Odd(Metric):
    DOC
    name = "odd"
    better = "lower"

    def measure(self, row):
        return BODY
"""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("row.attacker[0]", "gives 0.52 for a made-up row"),
        ("None", "does not apply to a made-up row"),
        ("random()", "gives other numbers the second time"),
        ("1 / 0", "fails on a row: ZeroDivisionError"),
        ("[1, 2]", "gives numbers of shape (2,)"),
        ("undocumented", "has no docstring"),
    ],
)
def test_check_examines_a_metric(own_registry: Registry, tmp_path: Path, body: str, said: str) -> None:
    doc = "" if body == "undocumented" else '"""Odd."""'
    (tmp_path / "odd.py").write_text(METRIC.replace("DOC", doc).replace("BODY", body))
    console = Console(file=io.StringIO(), width=200)
    assert check_method(str(tmp_path / "odd.py"), console) == (body in ("row.attacker[0]", "None"))
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert told.startswith("metric odd") and said in told and "Traceback" not in told


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
    (tmp_path / "gone.py").write_text(BROKEN + METRIC.replace("DOC", "").replace("BODY", "random()"))
    (tmp_path / "test_other.py").write_text("def test_other():\n    assert False\n")
    command = [sys.executable, "-m", "pytest", "-q", "-rfx", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, "--ntbench", "gone.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED gone.py::gone-check_finite" in done.stdout and "test_other" not in done.stdout
    assert "FAILED gone.py::odd-check_gives_the_same_twice" in done.stdout
    assert "gone-check_named_as_its_file" not in done.stdout
    none = subprocess.run([*command, "--ntbench", "none.py"], cwd=tmp_path, capture_output=True, text=True)
    assert none.returncode == 4 and "--ntbench" in none.stderr and "there is no such file" in none.stderr
