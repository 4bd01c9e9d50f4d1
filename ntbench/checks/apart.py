"""The contract examined in a process of its own, since a submission may end the process that it runs in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console

from ntbench.checks.contract import check_method
from ntbench.errors import UserError

_CHILD = "import sys; from ntbench.checks.apart import examine_here; examine_here(*sys.argv[1:])"


def check_apart(name_or_file: str, console: Console) -> bool:
    """Examine a method in a child that prints to the same terminal, and return whether it keeps the contract.

    Raises UserError where there is no such method.
    """
    with TemporaryDirectory() as folder:
        verdict = Path(folder) / "verdict"
        subprocess.run([sys.executable, "-c", _CHILD, name_or_file, str(verdict)], check=False)
        if not verdict.exists():
            console.print(f"{name_or_file} breaks the contract: it ended the process that examined it", style="red")
            return False
        word, _, reason = verdict.read_text(encoding="utf-8").partition(" ")
    if word == "refused":
        raise UserError(reason)
    return word == "kept"


def examine_here(name_or_file: str, verdict: str) -> None:
    """Examine a method on one thread, as workers run it, and leave the verdict in a file as the last thing done."""
    torch.set_num_threads(1)
    try:
        text = "kept" if check_method(name_or_file, Console()) else "broken"
    except UserError as error:
        text = f"refused {error}"
    Path(verdict).write_text(text, encoding="utf-8")
