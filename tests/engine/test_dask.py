"""The same grid through a Dask scheduler with worker processes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ntbench.engine.grid import Settings, execute
from ntbench.engine.plan import plan
from ntbench.engine.store import Store
from ntbench.measure.tables import TIMING, results_table
from ntbench.registry import Registry
from ntbench.suite import AttackEntry, Suite

distributed = pytest.importorskip("distributed")
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


KILLER = '''
"""Killer: ends the process that runs it."""
import os
from ntbench.method import Attack, register

@register
class Killer(Attack):
    """End the process."""
    name = "killer"

    def attack(self, model, ctx):
        os._exit(1)
        yield model
'''


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0
    )
    with cluster:
        yield cluster.scheduler_address


def table(folder: Path) -> str:
    return results_table(Store(folder).results()).drop(columns=list(TIMING)).to_csv(index=False)


def test_a_cluster_gives_the_same_csv(ntbench: Cli, address: str, smoke: Path, tmp_path: Path) -> None:
    done = ntbench("run", "smoke", "--dask", address, "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert table(tmp_path) == table(smoke)
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr


def test_a_plugin_that_kills_a_worker_costs_its_cells_only(
    address: str, cache: Path, tiny: Suite, tmp_path: Path, own_registry: Registry
) -> None:
    plugin = tmp_path / "killer.py"
    plugin.write_text(KILLER)
    own_registry.load_plugin(str(plugin))
    attacks = (*tiny.attacks, AttackEntry(name="killer"))
    cells = [cell for cell in plan(tiny.model_copy(update={"attacks": attacks})) if cell.samples == 20]
    settings = Settings(tmp_path, cache, tiny.limits, dask=address, plugins=own_registry.plugins)
    found = {
        result.cell.attack.name: (result.status, result.error.partition("\n")[0]) for result in execute(cells, settings)
    }
    assert found == {
        "finetune": ("ok", ""),
        "killer": ("error", "RuntimeError: the process of the method ended: the line was closed"),
    }
