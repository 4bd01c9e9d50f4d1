from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ntbench.registry import Registry, is_ours
from ntbench.report import declared
from ntbench.report.catalogue import catalogue, imported
from ntbench.report.declared import UnreadableError, declared_methods


def test_the_source_of_our_methods_tells_what_their_classes_say(own_registry: Registry) -> None:
    read, said = declared_methods(), imported([])
    # Other tests of this process may have left methods of their own.
    ours = {
        kind: {name: line for name, line in said[kind].items() if is_ours(own_registry.get(kind, name))}
        for kind in read
    }
    assert read == ours
    assert len(read["defense"]) > 15 and len(read["attack"]) > 15


def test_listing_our_methods_imports_none_of_them() -> None:
    program = (
        "import sys\nfrom ntbench.report.catalogue import catalogue\n"
        "assert len(catalogue([])) == 4\nassert not {'torch', 'timm', 'sklearn', 'pandas'} & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


BODIES = {
    "no class": "x = 1",
    "no name": "@register\nclass A(Defense):\n    pass",
    "computed name": "@register\nclass A(Defense):\n    name = 'a' + suffix",
    "computed access": "@register\nclass A(Attack):\n    name = 'a'\n    access = Access(**wanted)",
    "wrong access": "@register\nclass A(Attack):\n    name = 'a'\n    access = Access(colour=1)",
    "unknown base": "@register\nclass A(Elsewhere):\n    name = 'a'",
    "no sibling": "from ._gone import Base\n@register\nclass A(Base):\n    name = 'a'",
    "computed needs": "@register\nclass A(Defense):\n    name = 'a'\n    def needs(cls):\n        return asked()",
    "no needs": "@register\nclass A(Defense):\n    name = 'a'\n    def needs(cls):\n        pass",
    "no Python": "class",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_what_the_source_does_not_tell_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    file = tmp_path / "a.py"
    file.write_text(body)
    monkeypatch.setattr(declared, "_files", lambda: [file])
    with pytest.raises(UnreadableError):
        declared_methods()


def test_where_the_source_does_not_tell_classes_are_asked(
    own_registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise UnreadableError("computed")

    monkeypatch.setattr("ntbench.report.catalogue.declared_methods", refuse)
    assert "ntl" in list(catalogue([])[0].columns[0].cells)


def test_bases_hand_on_what_they_ask_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_base.py").write_text("class Near(Defense):\n    needs_target = True\n    needs_source = False")
    file = tmp_path / "a.py"
    file.write_text(
        '"""A: it protects.\n\nMore."""\nfrom ._base import Near as Base\n'
        "class Own(Base):\n    needs_source = True\n"
        "@register\nclass A(Own):\n    name: str = 'a'\n    needs_target_labels = True"
    )
    monkeypatch.setattr(declared, "_files", lambda: [file])
    assert declared_methods() == {"defense": {"a": "A: it protects. Needs source labels, target labels."}, "attack": {}}
