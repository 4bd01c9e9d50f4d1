"""A domain of one's own through the three doors, and behind the door of an engine."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ntbench.checks.contract import check_method
from ntbench.domains import Dataset, Raw, find
from ntbench.engine.foreign import ForeignDataset
from ntbench.engine.plan import manifest, plan
from ntbench.engine.prepared import prepared
from ntbench.engine.runner import Runner
from ntbench.errors import UserError
from ntbench.method import register
from ntbench.registry import Registry
from ntbench.report.catalogue import catalogue
from ntbench.suite import Suite
from ntbench.tasks.data import load_domain
from ntbench.types import Cell

PLUGIN = '''"""A plug-in."""
import os
import numpy as np
from ntbench.method import Dataset, Defense, Raw, register

@register
class Ramps(Dataset):
    """Two classes of ramps.

    More that is not shown.
    """

    name = "ramps"

    def build(self, image_size):
        levels = np.arange(2 * image_size, dtype=np.uint8)
        images = np.tile(levels[:image_size], (120, image_size, 1))
        labels = np.arange(120, dtype=np.int64) % 2
        images[labels == 1] += 100
        part = (images, labels)
        BODY
        return Raw(2, part, part, part, class_names=("dark", "bright"), remarks=(f"built by {os.getpid()}",))
'''


def file(folder: Path, body: str = "") -> Path:
    path = folder / "ramps_plugin.py"
    path.write_text(PLUGIN.replace("BODY", body), encoding="utf-8")
    return path


def test_a_decorated_class_is_a_domain(own_registry: Registry) -> None:
    @register
    class Constant(Dataset):
        """One image a class."""

        name = "constant"

        def build(self, image_size: int) -> Raw:
            part = (np.zeros((4, 5, 5), np.uint8), np.arange(4) % 2)
            return Raw(2, part, part, part)

    domain = load_domain.__wrapped__("constant", 8)
    assert domain.classes == 2 and domain.train.x.shape == (4, 3, 8, 8) and domain.train.x.unique().tolist() == [-1]
    assert find("constant").domains == {"constant": "One image a class."}


def test_an_installed_package_offers_domains(
    own_registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    point = type("Point", (), {"value": "ramps_plugin", "load": lambda self: importlib.import_module(self.value)})
    monkeypatch.setattr("ntbench.registry.entry_points", lambda group: [point()])
    for name, value in (("_discovered", False), ("_installed", set())):
        monkeypatch.setattr(own_registry, name, value)
    assert find("ramps").domains == {"ramps": "Two classes of ramps."}
    monkeypatch.delitem(sys.modules, "ramps_plugin")


def test_behind_the_door_another_process_builds_the_same_images(foreign: Registry, tmp_path: Path) -> None:
    (cls,) = foreign.load_plugin(str(file(tmp_path)))
    assert issubclass(cls, ForeignDataset) and "ntbench_plugin" not in str(sys.modules.get(cls.__module__))
    domain = load_domain.__wrapped__("ramps", 8, tmp_path / "cache")
    assert domain.class_names == ("dark", "bright") and domain.remarks[0].startswith("built by ")
    assert str(importlib.import_module("os").getpid()) not in domain.remarks[0]
    levels = (domain.train.x[0, 0, 0] + 1) * 127.5
    assert levels.round().tolist() == list(range(8)) and domain.train.y.tolist() == [0, 1] * 60
    again = load_domain.__wrapped__("ramps", 8, tmp_path / "cache")
    assert again.remarks == domain.remarks, "the cache answers"


def test_an_edited_file_builds_anew(foreign: Registry, tmp_path: Path) -> None:
    foreign.load_plugin(str(file(tmp_path)))
    before = load_domain.__wrapped__("ramps", 8, tmp_path / "cache")
    foreign.load_plugin(str(file(tmp_path, "images[0] = 255")))
    after = load_domain.__wrapped__("ramps", 8, tmp_path / "cache")
    assert before.digests != after.digests


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("part = (images / 255, labels)", r"train has images float64 \(120, 8, 8\), not uint8 \[n, h, w\]"),
        ("part = (images[:, 0], labels)", r"train has images uint8 \(120, 8\), not uint8"),
        ("part = (images, labels + 1)", "train has labels from 1 to 2, not 0 to 1"),
        ("part = (images, labels[:5])", r"train has labels int64 \(5,\), not int64 \[120\]"),
        ("part = (images[:0], labels[:0])", r"train has labels int64 \(0,\), not int64 \[0\], of at least one"),
        ("return Raw(2, part, part, part, class_names=('one',))", "1 names for 2 classes"),
        ("return Raw(2, part, part, part, views=7)", "120 test images are no 7 views"),
    ],
)
def test_what_is_no_domain_is_told(own_registry: Registry, tmp_path: Path, body: str, message: str) -> None:
    own_registry.load_plugin(str(file(tmp_path, body)))
    with pytest.raises(UserError, match=message):
        find("ramps").build("ramps", 8)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('planted')", "'ramps' cannot be used: ValueError: planted; mend its file"),
        ("os._exit(0)", "'ramps' cannot be used: the process of the method ended"),
    ],
)
def test_what_goes_wrong_in_another_process_is_told(foreign: Registry, tmp_path: Path, body: str, message: str) -> None:
    foreign.load_plugin(str(file(tmp_path, body)))
    with pytest.raises(UserError, match=message):
        find("ramps").build("ramps", 8)


def test_a_name_of_ours_is_refused(own_registry: Registry, tmp_path: Path) -> None:
    path = file(tmp_path)
    path.write_text(path.read_text().replace('"ramps"', '"usps"'))
    (cls,) = own_registry.load_plugin(str(path))
    with pytest.raises(UserError, match=r"domain 'usps' of .* has the name of one of ours; rename it"):
        cls.family()


@pytest.mark.parametrize(
    ("body", "word"), [("", "builds the same images twice: 120 train"), ("labels[:] = os.urandom(1)[0] % 2", "other")]
)
def test_check_builds_it_twice(own_registry: Registry, tmp_path: Path, body: str, word: str) -> None:
    console = Console(file=io.StringIO(), width=200)
    body = body and "images[0] = np.frombuffer(os.urandom(64), np.uint8).reshape(8, 8).repeat(2, 0).repeat(2, 1)"
    assert check_method(str(file(tmp_path, body)), console) == (not body)
    assert word in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def ours(tiny: Suite) -> Suite:
    """A suite whose target is the plug-in's."""
    task = tiny.tasks[0].model_copy(update={"target": "ramps", "label": "to ramps"})
    return tiny.model_copy(update={"tasks": (task,)})


def test_a_cell_runs_on_it_and_the_plan_names_its_file(
    foreign: Registry, ours: Suite, runner: Runner, tmp_path: Path
) -> None:
    foreign.load_plugin(str(file(tmp_path)))
    cells = plan(ours)
    assert str(tmp_path / "ramps_plugin.py") in manifest(ours, "", cells).sources
    assert (tmp_path / "ramps_plugin.py") in map(Path, foreign.plugins)
    result = runner.run(cells[0])
    assert result.status == "ok" and result.images == 120, result.error
    assert any("Two classes of ramps." in list(table.columns[1].cells) for table in catalogue([]))


def test_results_of_other_images_are_not_mixed_with_new_ones(
    foreign: Registry, ours: Suite, runner: Runner, cells: Callable[..., list[Cell]], cache: Path, tmp_path: Path
) -> None:
    foreign.load_plugin(str(file(tmp_path)))
    result: Any = runner.run(plan(ours)[0])
    assert any("classes: 0 dark, 1 bright" in line for line in prepared(plan(ours), cache, [result]))
    foreign.load_plugin(str(file(tmp_path, "images[0] = 255")))
    load_domain.cache_clear()
    with pytest.raises(UserError, match="'ramps': its train images are not those of the results in this folder"):
        prepared(plan(ours), cache, [result])
    assert prepared(cells(), cache, [result]) == []
