"""One cell by itself, in a folder that nobody keeps: what recomputes a published number."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ntbench.engine.runner import Runner
from ntbench.engine.session import cache_folder
from ntbench.engine.store import Store
from ntbench.suite import Limits
from ntbench.types import Cell, Result


def run_alone(cell: Cell) -> Result:
    """Train, protect and attack as a worker does, on one thread of the CPU, and return the result."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        return Runner(Store(Path(folder)), torch.device("cpu"), Limits(), cache_folder()).run(cell)
