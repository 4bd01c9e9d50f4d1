"""Files by their content: those that a method is made of, its own and the siblings that it imports, and any other."""

from __future__ import annotations

import ast
import hashlib
import sys
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

SECOND = 1_000_000_000
"""In nanoseconds."""


def source_file(cls: type[Any]) -> str:
    """Return the file that a class was defined in, or its module's name where there is none.

    A class that stands for another one, in another process, says so itself.
    """
    if told := cls.__dict__.get("origin_file"):
        return str(told)
    module = sys.modules.get(cls.__module__)
    return getattr(module, "__file__", None) or cls.__module__


def source_files(cls: type[Any]) -> list[Path]:
    """Return the file of a class and every sibling that it reaches by relative imports, sorted."""
    return files_from(Path(source_file(cls)))


def files_from(start: Path) -> list[Path]:
    """Return a file and every sibling that it reaches by relative imports, sorted."""
    found: set[Path] = set()
    waiting = [start]
    while waiting:
        file = waiting.pop()
        if file.is_file() and file not in found:
            found.add(file)
            waiting.extend(_siblings(file))
    return sorted(found)


def code_digest(cls: type[Any]) -> str:
    """Return 16 hex digits of the SHA-256 of the files that a class is made of."""
    return files_digest(source_files(cls))


def files_digest(files: Iterable[Path]) -> str:
    """Return 16 hex digits of the SHA-256 of files one after the other."""
    state = hashlib.sha256()
    for file in files:
        state.update(file.read_bytes())
    return state.hexdigest()[:16]


def weights_file(path: Path) -> Path:
    """Return the file of weights that a path means: of a folder, the one that diffusers saves there."""
    return path / "diffusion_pytorch_model.safetensors" if path.is_dir() else path


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex digits; as long as its size and its time of change stay it is read once.

    A file of the last second is read every time: clocks of file systems tick, and a second change may bear the time of
    the first.
    """
    stat = path.stat()
    fresh = time.time_ns() - stat.st_mtime_ns < SECOND
    read = _file_digest.__wrapped__ if fresh else _file_digest
    return read(str(path), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _file_digest(path: str, changed: int, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _siblings(file: Path) -> Iterator[Path]:
    # Files are read anew every time, since they may be edited under a run; the same text is parsed once.
    for name in _relative_imports(file.read_text(encoding="utf-8")):
        yield file.parent / f"{name.replace('.', '/')}.py"


@lru_cache(maxsize=256)
def _relative_imports(source: str) -> list[str]:
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.level == 1]
    return [name for node in nodes for name in ([node.module] if node.module else [alias.name for alias in node.names])]
