"""Names to classes: the three doors, collisions, broken plug-ins and changed code."""

from __future__ import annotations

import hashlib
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ntbench.errors import UserError
from ntbench.registry import Registry, registry
from ntbench.sources import code_digest, source_file
from ntbench.types import digest

PLUGIN = '''"""A plug-in for tests. No paper."""
from ntbench.method import Defense, register

@register
class Planted(Defense):
    name = "{name}"
    lr: float = 0.1
'''


class Method:
    """What the registry asks of a class."""

    kind = "defense"
    name = "planted"


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget afterwards what a test registers in the one registry of the process."""
    registry.discover()
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))


def planted(folder: Path, name: str, text: str = PLUGIN) -> Path:
    file = folder / f"{name}.py"
    file.write_text(text.replace("{name}", name), encoding="utf-8")
    return file


def point(monkeypatch: pytest.MonkeyPatch, folder: Path, **modules: str) -> Registry:
    """Return an empty registry for which these modules are the installed packages."""

    class Point:
        def __init__(self, value: str) -> None:
            self.value = value

        def load(self) -> Any:
            module = importlib.import_module(self.value)
            return getattr(module, "Sound", module)

    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr("ntbench.registry.entry_points", lambda group: [Point(name) for name in modules])
    return Registry()


def test_the_decorator_registers_and_returns_the_class() -> None:
    held = Registry()
    assert held.register(Method) is Method
    held._discovered = True
    assert held.get("defense", "planted") is Method
    assert held.names("defense") == ["planted"] and held.names("attack") == []


def test_built_ins_come_through_entry_points() -> None:
    assert {"none", "scratch", "magnitude", "ntl", "sophon", "ntp"} <= set(registry.names("defense"))
    assert "finetune" in registry.names("attack")
    assert not {file for file in registry.plugins if Path(file).parent.name in ("defenses", "attacks")}


def test_files_that_start_with_an_underscore_hold_shared_maths_and_no_methods() -> None:
    files = {Path(source_file(registry.get("defense", name))).stem for name in registry.names("defense")}
    assert not {stem for stem in files if stem.startswith("_")}


def test_a_file_registers_and_becomes_a_plug_in_of_the_workers(methods: None, tmp_path: Path) -> None:
    file = planted(tmp_path, "planted_by_file")
    (cls,) = registry.load_plugin(str(file))
    assert registry.get("defense", "planted_by_file") is cls
    assert str(file) in registry.plugins


def test_loading_a_file_again_is_no_collision(methods: None, tmp_path: Path) -> None:
    file = planted(tmp_path, "planted_again")
    (cls,) = registry.load_plugin(str(file))
    assert registry.register(cls) is cls


def test_two_files_of_one_name_are_an_error_that_names_both(methods: None, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = planted(tmp_path / "a", "planted_collision"), planted(tmp_path / "b", "planted_collision")
    registry.load_plugin(str(first))
    with pytest.raises(UserError, match="rename one") as raised:
        registry.load_plugin(str(second))
    assert str(first) in str(raised.value) and str(second) in str(raised.value)


def test_a_file_cannot_take_the_name_of_a_built_in(methods: None, tmp_path: Path) -> None:
    before = registry.get("defense", "none")
    with pytest.raises(UserError, match=r"'none' of .* is already registered"):
        registry.load_plugin(str(planted(tmp_path, "none")))
    assert registry.get("defense", "none") is before


def test_one_name_may_stand_for_a_defense_and_an_attack() -> None:
    class Other(Method):
        kind = "attack"

    held = Registry()
    held._discovered = True
    held.register(Method)
    held.register(Other)
    assert held.get("attack", "planted") is Other and held.get("defense", "planted") is Method


@pytest.mark.parametrize("name", ["My_Defense", "my-defense", "", "9lives", None])
def test_names_that_are_not_snake_case_are_refused(name: Any) -> None:
    with pytest.raises(UserError, match="set `name` to a lower snake case name"):
        Registry().register(type("Broken", (Method,), {"name": name}))


def test_classes_that_are_no_methods_are_refused() -> None:
    with pytest.raises(UserError, match="derive from Defense or Attack"):
        Registry().register(type("Broken", (), {"name": "broken"}))


def test_unknown_names_come_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match="unknown defense 'sofon'; did you mean 'sophon'"):
        registry.get("defense", "sofon")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "registers nothing; decorate its class with @register"),
        ("raise RuntimeError('planted')", "cannot be imported: RuntimeError: planted"),
        ("def (", "cannot be imported: SyntaxError"),
        ("import nothing_of_this_name", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_broken_files_are_errors_with_the_reason(methods: None, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        registry.load_plugin(str(planted(tmp_path, "broken", text)))


def test_files_that_are_absent_or_no_python_are_errors(methods: None, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no code")
    with pytest.raises(UserError, match="does not exist; give the path of a Python file"):
        registry.load_plugin(str(tmp_path / "absent.py"))
    with pytest.raises(UserError, match="is not a Python file"):
        registry.load_plugin(str(tmp_path / "notes.txt"))


def test_a_broken_file_can_be_mended_and_loaded(methods: None, tmp_path: Path) -> None:
    file = planted(tmp_path, "planted_and_mended", "raise RuntimeError('planted')")
    with pytest.raises(UserError):
        registry.load_plugin(str(file))
    planted(tmp_path, "planted_and_mended")
    assert [cls.name for cls in registry.load_plugin(str(file))] == ["planted_and_mended"]


def test_a_broken_package_is_a_warning_and_the_others_are_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sound = "class Sound:\n    kind, name = 'defense', 'sound'\n"
    held = point(monkeypatch, tmp_path, planted_broken="raise ValueError('planted')", planted_sound=sound)
    with pytest.warns(UserWarning, match="plug-in planted_broken is left out: ValueError: planted"):
        assert held.names("defense") == ["sound"]
    assert held.plugins == ()


def test_create_builds_what_a_spec_describes() -> None:
    method = registry.get("attack", "finetune")(lr=0.5)
    assert registry.create(method.spec("label")) == method


def test_create_refuses_code_that_changed_since(methods: None, tmp_path: Path) -> None:
    file = planted(tmp_path, "planted_change")
    (cls,) = registry.load_plugin(str(file))
    spec = cls().spec()
    assert registry.create(spec) == cls()
    file.write_text(file.read_text(encoding="utf-8") + "\n# another thought\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"the code of defense 'planted_change' in .* changed; plan the run again"):
        registry.create(spec)


def test_the_code_digest_is_that_of_the_file(methods: None, tmp_path: Path) -> None:
    file = planted(tmp_path, "planted_digest")
    (cls,) = registry.load_plugin(str(file))
    assert code_digest(cls) == hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    assert len(code_digest(cls)) == len(digest(1))


def test_an_installed_method_that_was_imported_by_hand_is_no_plugin() -> None:
    code = (
        "import ntbench.attacks.regrow\n"
        "from ntbench.registry import registry\n"
        "assert 'regrow' in registry.names('attack')\n"
        "print(registry.plugins)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "()\n"
