"""The same grid through a Dask scheduler with worker processes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ntbench.store import Store
from ntbench.tables import TIMING, results_table

distributed = pytest.importorskip("distributed")
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


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
