"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path


def write_all(folder: Path, files: Mapping[str, bytes], ours: Iterable[str]) -> None:
    """Write files by their path below a folder, and remove those of an earlier report that this one does not have.

    `ours` are patterns of what a report may leave there. A full disk leaves each file as it was.
    """
    for name, data in files.items():
        write_whole(folder / name, data)
    kept = {folder / name for name in files}
    for pattern in ours:
        for old in set(folder.glob(pattern)) - kept:
            old.unlink()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, and leave nothing half written behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name[:80]}.{os.getpid()}")
    try:
        unfinished.write_bytes(data)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
