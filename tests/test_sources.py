from __future__ import annotations

import hashlib
import importlib
import os
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from ntbench.sources import code_digest, file_digest, source_file, source_files

METHOD = "from ._first import one\nclass Planted: pass\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "planted_package"
    folder.mkdir()
    for name, text in {"__init__": "", "method": METHOD, "_first": "from . import _second\none = 1\n"}.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "_second.py").write_text("from . import _first  # a circle\n")
    (folder / "_stranger.py").write_text("three = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith(folder.name)]:
        monkeypatch.delitem(sys.modules, name)
    return folder


def planted(folder: Path) -> type:
    module: ModuleType = importlib.import_module(f"{folder.name}.method")
    return module.Planted  # type: ignore[no-any-return]


def test_siblings_belong_to_a_method(package: Path) -> None:
    cls = planted(package)
    assert source_file(cls) == str(package / "method.py")
    assert [file.stem for file in source_files(cls)] == ["_first", "_second", "method"]


@pytest.mark.parametrize(("file", "changes"), [("_second", True), ("method", True), ("_stranger", False)])
def test_the_digest_follows_what_is_imported(package: Path, file: str, changes: bool) -> None:
    cls = planted(package)
    before = code_digest(cls)
    with (package / f"{file}.py").open("a") as text:
        text.write("# edited\n")
    assert (code_digest(cls) != before) is changes


def test_a_class_without_a_file_has_no_sources() -> None:
    module = ModuleType("no_file")
    sys.modules["no_file"] = module
    cls = type("Loose", (), {"__module__": "no_file"})
    assert source_files(cls) == []
    assert source_file(cls) == "no_file"
    del sys.modules["no_file"]


def test_a_file_that_changes_twice_in_one_tick_of_the_clock_is_read_again(tmp_path: Path) -> None:
    file, found = tmp_path / "weights", []
    # Ahead of the clock, so that a slow machine does not make it an old file.
    tick = time.time_ns() + 600 * 10**9
    for content in (b"one", b"two"):
        file.write_bytes(content)
        os.utime(file, ns=(tick, tick))
        found.append(file_digest(file))
    assert found == [hashlib.sha256(content).hexdigest() for content in (b"one", b"two")]
