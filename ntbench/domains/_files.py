"""The folder that data files live in, and what to say where they are missing or damaged."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ntbench.errors import UserError

_REMEDY = "Set the environment variable NTBENCH_DATA to the folder that holds the data, or put the files there."


def data_root() -> Path:
    """Return the folder named by NTBENCH_DATA, or the default one in the user's cache."""
    return Path(os.environ.get("NTBENCH_DATA") or "~/.cache/ntbench/data").expanduser()


def missing(name: str, folder: Path, cause: str) -> UserError:
    """Return the error for a domain whose files are not in a folder."""
    return UserError(f"domain {name!r}: {cause} in {folder}. {_REMEDY}")


def official(name: str, folder: Path, probe: str, load: Callable[[bool], Any]) -> Any:
    """Load a torchvision data set; a download is tried only where the probe, a file of its folder, is absent.

    UserError where the download fails and where files that are there are damaged.
    """
    present = (folder / probe).exists()
    try:
        return load(not present)
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        cause = " ".join(str(error).split())
        if present:
            raise UserError(f"domain {name!r}: the files in {folder} are damaged ({cause}); delete them") from error
        raise missing(name, folder, f"no {probe} and no way to download it ({cause})") from error


def verify(name: str, folder: Path, sums: Mapping[str, str]) -> None:
    """Compare the SHA-256 of files with their published values; UserError at the first one that differs."""
    for file, expected in sums.items():
        found = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        if found != expected:
            raise UserError(f"domain {name!r}: {folder / file} has SHA-256 {found}, not {expected}; delete it")
