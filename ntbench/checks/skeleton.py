"""A file to begin a method with, and its test; both pass as they are written."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from string import Template

from ntbench.errors import UserError
from ntbench.registry import registry
from ntbench.types import Kind


def begin(kind: Kind, name: str, folder: Path) -> tuple[Path, Path]:
    """Write NAME.py and test_NAME.py into a folder and return both paths.

    Raises UserError on a name that cannot be registered or is taken, and where one of the files exists.
    """
    if not name.isidentifier() or name != name.lower() or name.startswith("_"):
        raise UserError(f"{name!r} cannot be a method's name; give a lower snake case name such as my_{kind}")
    if name in registry.names(kind):
        raise UserError(f"{kind} {name!r} is there already; choose another name, `ntbench list` shows those taken")
    files = folder / f"{name}.py", folder / f"test_{name}.py"
    for file in files:
        if file.exists():
            raise UserError(f"{str(file)!r} exists; choose another name or --to folder")
    cls = "".join(part.capitalize() for part in name.split("_"))
    folder.mkdir(parents=True, exist_ok=True)
    for file, source in zip(files, (kind, "test"), strict=True):
        text = resources.files("ntbench.checks.skeletons").joinpath(f"{source}.txt").read_text(encoding="utf-8")
        file.write_text(Template(text).substitute(name=name, cls=cls), encoding="utf-8")
    return files
