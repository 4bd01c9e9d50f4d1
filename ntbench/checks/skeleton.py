"""A file to begin a method, a domain or a metric with, and its test; both pass as they are written."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from string import Template

from ntbench.domains import describe_domains
from ntbench.errors import UserError
from ntbench.measure.board import COLUMNS
from ntbench.measure.registered import column_names
from ntbench.registry import registry

TESTS = {"defense": "test_method", "attack": "test_method", "domain": "test_domain", "metric": "test_metric"}
"""The skeleton of the test for every kind of thing."""


def begin(kind: str, name: str, folder: Path) -> tuple[Path, Path]:
    """Write NAME.py and test_NAME.py into a folder and return both paths.

    Raises UserError on a name that cannot be registered or is taken, and where one of the files exists.
    """
    if not name.isidentifier() or name != name.lower() or name.startswith("_"):
        what = "a method" if TESTS[kind] == "test_method" else f"a {kind}"
        raise UserError(f"{name!r} cannot be {what}'s name; give a lower snake case name such as my_{kind}")
    if name in registry.names(kind) or (kind == "domain" and name in describe_domains()):
        raise UserError(f"{kind} {name!r} is there already; choose another name, `ntbench list` shows those taken")
    if kind == "metric" and (held := {*column_names(name)} & {*COLUMNS}):
        raise UserError(f"metric {name!r} would have the leaderboard's column {min(held)!r}; choose another name")
    files = folder / f"{name}.py", folder / f"test_{name}.py"
    for file in files:
        if file.exists():
            raise UserError(f"{str(file)!r} exists; choose another name or --to folder")
    cls = "".join(part.capitalize() for part in name.split("_"))
    folder.mkdir(parents=True, exist_ok=True)
    for file, source in zip(files, (kind, TESTS[kind]), strict=True):
        text = resources.files("ntbench.checks.skeletons").joinpath(f"{source}.txt").read_text(encoding="utf-8")
        file.write_text(Template(text).substitute(name=name, cls=cls), encoding="utf-8")
    return files
