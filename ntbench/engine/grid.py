"""Cells on all cores, or on a Dask cluster: joblib runs them, results stream back, a dead worker costs one cell."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import torch

from ntbench.engine.foreign import open_door
from ntbench.engine.lanes import grouped, run_lanes
from ntbench.engine.limits import limit_memory
from ntbench.engine.orphans import leave_with
from ntbench.engine.runner import Runner
from ntbench.engine.sandbox import confine
from ntbench.engine.store import Store
from ntbench.errors import UserError
from ntbench.registry import registry
from ntbench.suite import Limits
from ntbench.types import Cell, Result

# An interruption is told by the command line, in words that fit.
warnings.filterwarnings("ignore", r"\d+ tasks (which were still being processed|have been successfully)", UserWarning)
# loky renews workers whose memory grows, as it does when they meet another domain; nothing is lost by that.
warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor", UserWarning)
# The command line leaves at once; what loky has left then its tracker clears away, and need not tell.
sys.warnoptions.append("ignore:resource_tracker")

DIED = "the worker process died: killed, out of memory, crashed, or stopped for not obeying its time limit"
_DEATHS = ("TerminatedWorkerError", "BrokenProcessPool", "KilledWorker", "ChildProcessError")


@dataclass(frozen=True)
class Settings:
    """Where and how cells run; everything in it is a plain value that travels to workers.

    Without `attack`, what cells attack is protected and nothing is attacked.
    """

    folder: Path
    cache: Path
    limits: Limits
    jobs: int = 1
    device: str = "cpu"
    dask: str = ""
    plugins: tuple[str, ...] = ()
    sandbox: bool = False
    attack: bool = True
    lanes: int = 1


class Job(NamedTuple):
    """One piece of work: protect what a cell attacks, or run the cell, perhaps with others beside it."""

    stage: str
    cell: Cell
    beside: Sequence[Cell] = ()

    @property
    def key(self) -> str:
        """Return what marks this job as running."""
        return self.cell.protect_key if self.stage == "protect" else self.cell.key

    @property
    def alone(self) -> list[Job]:
        """Return the same work cell by cell."""
        return [Job(self.stage, cell) for cell in (self.cell, *self.beside)]


def execute(
    cells: Iterable[Cell], settings: Settings, protected: Callable[[], None] = lambda: None
) -> Iterator[Result]:
    """Run cells and yield their results as they finish; `protected` is called after every protection.

    Protections are started first, so that long ones overlap with the attacks on what is ready. When a worker dies, what
    was running is tried again one by one, and what kills its worker alone becomes a failed result.
    """
    waiting = {job.key: job for job in _jobs(list(cells), settings.attack, settings.lanes)}
    running = settings.folder / "running"
    while waiting:
        _clear(running)
        try:
            for key, results in _stream(list(waiting.values()), settings):
                done = waiting.pop(key)
                yield from results
                if done.stage == "protect":
                    protected()
        except UserError:
            raise
        except Exception:
            suspects = _suspects(waiting, {file.name for file in running.iterdir()})
            if not suspects:
                raise
            yield from _one_by_one(suspects, settings)
            for job in suspects:
                del waiting[job.key]
                if job.stage == "protect":
                    protected()


def _jobs(cells: list[Cell], attack: bool = True, lanes: int = 1) -> list[Job]:
    protections = [Job("protect", cell) for cell in {cell.protect_key: cell for cell in cells}.values()]
    return [*protections, *(Job("attack", first, beside) for first, *beside in grouped(cells, lanes) if attack)]


def _suspects(waiting: dict[str, Job], running: set[str]) -> list[Job]:
    # An attack that was running may have been protecting for itself, so unfinished protections stand trial before it.
    attacks = [job for key, job in waiting.items() if key in running and job.stage == "attack"]
    guilty = running | {job.cell.protect_key for job in attacks}
    return [*(job for key, job in waiting.items() if key in guilty and job.stage == "protect"), *attacks]


def _one_by_one(suspects: list[Job], settings: Settings) -> Iterator[Result]:
    for job in (job for suspect in suspects for job in suspect.alone):
        (settings.folder / "running" / job.key).unlink(missing_ok=True)
        try:
            results = [result for _, found in _stream([job], replace(settings, jobs=1)) for result in found]
        except UserError:
            raise
        except Exception as error:
            results = list(filter(None, [_condemned(job, error, settings)]))
        yield from results


def _condemned(job: Job, error: Exception, settings: Settings) -> Result | None:
    kind = type(error).__name__
    reason = DIED if kind in _DEATHS else f"{kind}: {error}"
    if job.stage == "protect":
        _runner(settings).condemn(job.cell, reason)
        return None
    return Result(cell=job.cell, status="error", error=reason)


def _stream(jobs: list[Job], settings: Settings) -> Iterator[tuple[str, list[Result]]]:
    with ExitStack() as stack:
        if settings.dask:
            stack.enter_context(_cluster(settings.dask))
        else:
            # Not with its first job: whoever dies before handing one out leaves workers, too.
            leaving: dict[str, Any] = {"initializer": leave_with, "initargs": (os.getpid(),)}
            stack.enter_context(joblib.parallel_config("loky", inner_max_num_threads=1, **leaving))
        # A single job at a time still runs in a process of its own: joblib would run n_jobs=1 in this one.
        parallel = joblib.Parallel(
            n_jobs=-1 if settings.dask else max(2, settings.jobs),
            pre_dispatch=1 if settings.jobs == 1 and not settings.dask else "2*n_jobs",
            return_as="generator_unordered",
            batch_size=1,
        )
        yield from parallel(joblib.delayed(_work)(job, settings) for job in jobs)


@contextmanager
def _cluster(address: str) -> Iterator[None]:
    try:
        from distributed import Client
    except ImportError:
        raise UserError("--dask needs the package distributed; install ntbench[dask]") from None
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise UserError(f"no Dask scheduler answers at {address!r}: {error}") from None
    with client, joblib.parallel_config(_remote_backend()):
        yield


def _remote_backend() -> Any:
    from joblib._dask import DaskDistributedBackend

    class Remote(DaskDistributedBackend):  # type: ignore[misc]
        """Work stays out of this process: joblib would run it here while the cluster has a single core."""

        def effective_n_jobs(self, n_jobs: int) -> int:
            """Return the number of cores, at least 2."""
            return max(2, int(super().effective_n_jobs(n_jobs)))

    return Remote(wait_for_workers_timeout=60)


def _work(job: Job, settings: Settings) -> tuple[str, list[Result]]:
    torch.set_num_threads(1)
    open_door()
    if settings.sandbox:
        confine()
    for plugin in settings.plugins:
        registry.load_plugin(plugin)
    if settings.device == "cpu":
        limit_memory(settings.limits.memory_mb)
    mark = settings.folder / "running" / job.key
    if settings.dask and mark.exists():
        # Dask gives the work of a dead worker to three more; one death is enough to put it on trial.
        raise ChildProcessError(DIED)
    with _marked(mark):
        if job.stage == "protect":
            _runner(settings).protected(job.cell)
            return job.key, []
        return job.key, list(run_lanes(_runner(settings), (job.cell, *job.beside)))


def _runner(settings: Settings) -> Runner:
    return Runner(Store(settings.folder), torch.device(settings.device), settings.limits, settings.cache)


@contextmanager
def _marked(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(str(os.getpid()), encoding="utf-8")
    yield
    file.unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        file.unlink(missing_ok=True)
