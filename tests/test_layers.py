"""The layers, read from the imports in the source."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A package imports those that stand before it, and itself. Inside a package nothing goes round in circles.
ORDER = (
    *("errors", "types", "access", "sources", "registry", "suite"),
    *("domains", "tasks", "learn", "metric", "method"),
    *("measure", "report", "engine", "checks", "pytest_plugin", "notebook", "cli"),
)
NO_TORCH = {"errors", "types", "access", "sources", "registry", "suite", "domains", "metric", "measure", "report"}


def modules() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in sorted((ROOT / "ntbench").rglob("*.py")):
        name = file.relative_to(ROOT / "ntbench").parts[0].removesuffix(".py")
        found.setdefault(name, []).append(file)
    return {name: files for name, files in found.items() if name not in ("__init__", "protocols")}


def imports(file: Path) -> Iterator[str]:
    """Yield the full name of everything that a file imports, at any depth."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = file.relative_to(ROOT).parent.parts
            base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            origin = base if node.level else str(node.module)
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def ours(file: Path) -> set[str]:
    """Return the modules of the package that a file imports."""
    names = {name.split(".")[1] for name in imports(file) if name.startswith("ntbench.")}
    return {name for name in names if not name.startswith("__")}


def test_every_module_has_its_layer() -> None:
    assert set(ORDER) == modules().keys()


PACKAGES = sorted(name for name in modules() if (ROOT / "ntbench" / name).is_dir())


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_says_what_lives_there(name: str) -> None:
    assert len(ast.get_docstring(ast.parse((ROOT / "ntbench" / name / "__init__.py").read_text())) or "") > 40


@pytest.mark.parametrize("name", PACKAGES)
def test_no_imports_go_round_in_circles(name: str) -> None:
    def inside(file: Path) -> set[str]:
        found = (imported.split(".") for imported in imports(file) if imported.startswith(f"ntbench.{name}."))
        return {parts[2] for parts in found} - {file.stem}

    files = {file.stem: inside(file) for file in modules()[name] if file.stem != "__init__"}
    tuple(TopologicalSorter({stem: found & files.keys() for stem, found in files.items()}).static_order())


@pytest.mark.parametrize("name", ORDER)
def test_imports_only_point_down(name: str) -> None:
    allowed = set(ORDER[: ORDER.index(name)]) | ({name} if (ROOT / "ntbench" / name).is_dir() else set())
    if name == "cli":
        allowed.add("leaderboard")
    wrong = {str(file.relative_to(ROOT)): sorted(ours(file) - allowed) for file in modules()[name]}
    assert {file: names for file, names in wrong.items() if names} == {}


@pytest.mark.parametrize("name", sorted(NO_TORCH))
def test_low_modules_do_without_torch(name: str) -> None:
    heavy = {"torch", "timm", "torchvision"}
    found = {imported.split(".")[0] for file in modules()[name] for imported in imports(file)} & heavy
    # Published data sets are read by torchvision, where one is asked for.
    assert found <= ({"torchvision"} if name == "domains" else set())


METHOD_FILES = sorted([*(ROOT / "defenses").glob("*.py"), *(ROOT / "attacks").glob("*.py")])


@pytest.mark.parametrize("file", METHOD_FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_methods_import_the_one_door_their_siblings_and_declared_packages(file: Path) -> None:
    declared = {"sklearn" if name == "scikit-learn" else name for name in dependencies()}
    for name in imports(file):
        top = name.split(".")[0]
        if top == "ntbench":
            assert name.startswith("ntbench.method."), name
        else:
            assert top in {file.parent.name, *declared, *sys.stdlib_module_names}, name


def dependencies() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {re.split(r"[^\w-]", line)[0] for line in project["dependencies"]}


def test_nothing_imports_methods() -> None:
    banned = ("ntbench.defenses", "ntbench.attacks", "defenses", "attacks")
    outside = [*(ROOT / "ntbench").rglob("*.py"), *(ROOT / "leaderboard").rglob("*.py")]
    # Shared maths of several methods has tests of its own; its files begin with an underscore.
    tests = [(file, name) for file in (ROOT / "tests").rglob("*.py") for name in imports(file) if "._" not in name]
    found = [(file, name) for file in outside for name in imports(file)] + tests
    assert [(str(file), name) for file, name in found if name.startswith(tuple(f"{b}." for b in banned))] == []


def test_the_reader_of_imports_reads_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tests.test_layers.ROOT" if "tests.test_layers" in sys.modules else f"{__name__}.ROOT", tmp_path
    )
    file = tmp_path / "defenses" / "x.py"
    file.parent.mkdir()
    file.write_text(
        "import a.b\nfrom c import d\nfrom ._e import f\nfrom . import g\ndef h():\n    from i.j import k\n"
    )
    assert list(imports(file)) == ["a.b", "c.d", "defenses._e.f", "defenses.g", "i.j.k"]
