"""One command on one run's folder: plan or resume, execute under a progress bar, show and report."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.console import Console

from ntbench.engine.manifest import Manifest, read_manifest
from ntbench.engine.progress import bars
from ntbench.engine.store import Store
from ntbench.errors import UserError
from ntbench.registry import registry
from ntbench.suite import Suite, load_suite
from ntbench.types import SETTLED, Cell, Result, digest


@dataclass(frozen=True)
class Request:
    """What a command asks for."""

    suite: str
    defenses: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    tasks: tuple[str, ...] = ()
    search: int = 0
    """Optimizer steps of an automatic search that stands in place of the suite's attacks."""

    @cached_property
    def resolved(self) -> Suite:
        """Return the suite with the seeds and tasks that are asked for."""
        suite = load_suite(self.suite)
        suite = suite.model_copy(update={"seeds": self.seeds}) if self.seeds else suite
        suite = suite.with_tasks(self.tasks) if self.tasks else suite
        return suite.searched(self.search) if self.search else suite

    @cached_property
    def key(self) -> str:
        """Return what tells two requests apart, without importing any method."""
        plugins = [str(Path(plugin).resolve()) for plugin in self.plugins]
        return digest([self.resolved.model_dump(mode="json"), self.defenses, plugins])


class Session:
    """What commands do in one run's folder."""

    def __init__(self, folder: Path, console: Console) -> None:
        """Name the folder; nothing is read or created yet."""
        self.folder, self.console = folder, console
        self.store = Store(folder)

    @property
    def page(self) -> Path:
        """Return where the report's page lies or would lie."""
        return self.folder / "report" / "index.html"

    @property
    def suite(self) -> Suite:
        """Return the suite of the folder's plan."""
        return self._manifest().suite

    def results(self) -> list[Result]:
        """Return the stored results that belong to the folder's plan."""
        planned = set(self._manifest().cells.values())
        return [result for result in self.store.results() if result.cell.key in planned]

    def run(self, request: Request, jobs: int, device: str, dask: str, retry_failed: bool, together: int = 0) -> None:
        """Compute what a request asks for and the folder lacks; a report of less is removed.

        So many cells train at once in one process; 0 leaves the number to the device.
        """
        asked = request.key  # reads the suite: a mistake in it leaves no folder behind
        with self.store.writing():
            held = read_manifest(self.folder)
            statuses = self.store.statuses()
            if retry_failed:
                statuses = self._forget_failed(statuses)
            if held and held.answers(asked) and statuses.keys() >= set(held.asked):
                self.console.print(f"nothing to do: all {len(held.asked)} cells are in {self.folder}")
                return
            cells = self._plan(request, held)
            missing = [cell for cell in cells if cell.key not in statuses]
            self._execute(missing, len(cells), jobs, device, dask, together or at_once(device))

    def estimate(self, request: Request, jobs: int, device: str) -> None:
        """Print how many cells of a request are left and about how long they take."""
        from ntbench.engine.estimate import seconds_per_cell
        from ntbench.engine.plan import applies
        from ntbench.learn.models import check_device

        check_device(device)
        cells, _ = planned(request)
        done = self.store.statuses()
        missing = [cell for cell in cells if cell.key not in done and applies(cell)]
        protections = len({cell.protect_key for cell in missing})
        seconds = sum(seconds_per_cell(cell, device) for cell in missing) / jobs
        self.console.print(
            f"{len(missing)} of {len(cells)} cells to run, {protections} protections: about {seconds / 60:.1f} minutes "
            f"for the cells on {jobs} workers, and the defenses' own training on top"
        )

    def show(self, selection: str) -> None:
        """Print the leaderboard and where the report lies, which is written where there is none."""
        from ntbench.measure.tables import leaderboard_table
        from ntbench.report.page import terminal_table

        self.console.print(terminal_table(leaderboard_table(self.results(), self.suite, selection)))
        if not self.page.exists():
            self.report(selection)
        self.console.print(f"report: {self.page}", highlight=False)

    def report(self, selection: str) -> None:
        """Write the report."""
        from ntbench.report.page import write_report

        with self.console.status("writing the report"):
            write_report(self.folder, self.results(), self.suite, selection)

    def say_where_it_stands(self) -> None:
        """Print what an interruption left behind."""
        self.console.print(
            f"\ninterrupted: {len(self.store.statuses())} finished cells are safe in {self.folder}; "
            "the same command goes on from there"
        )

    def _manifest(self) -> Manifest:
        held = read_manifest(self.folder)
        if held is None:
            raise UserError(f"{str(self.folder)!r} holds no run; start one with `ntbench run SUITE --out FOLDER`")
        return held

    def _plan(self, request: Request, held: Manifest | None) -> list[Cell]:
        with self.console.status("planning"):
            from ntbench.engine.plan import manifest

            cells, suite = planned(request)
            manifest(suite, request.key, cells).after(held).write(self.folder)
        return cells

    def _forget_failed(self, statuses: dict[str, str]) -> dict[str, str]:
        failed = [result for result in self.store.results() if result.status not in SETTLED]
        for result in failed:
            if result.protection and result.protection.status != "ok":
                self.store.forget_artifact(result.cell.protect_key)
                self.store.forget_artifact(result.cell.pretrain_key)
        self.store.forget(result.cell.key for result in failed)
        return {key: status for key, status in statuses.items() if status in SETTLED}

    def _execute(self, missing: list[Cell], total: int, jobs: int, device: str, dask: str, together: int) -> None:
        from ntbench.engine.grid import Settings, execute
        from ntbench.learn.models import check_device

        if not dask:
            check_device(device)
        settings = Settings(
            folder=self.folder.resolve(),
            cache=cache_folder(),
            limits=self.suite.limits,
            jobs=jobs,
            together=together,
            device=device,
            dask=dask,
            plugins=registry.plugins,
        )
        with self.console.status("preparing the data"):
            _prepare(missing, settings.cache)
        protections = len({cell.protect_key for cell in missing})
        with bars(self.console, protections, total, total - len(missing)) as shown:
            for result in execute(missing, settings, shown.protection):
                self.store.add(result)
                shown.cell(result)
        if missing:
            self.page.unlink(missing_ok=True)


def open_run(folder: Path, console: Console) -> Session:
    """Return a session that reads a finished or interrupted run."""
    session = Session(folder, console)
    session.suite  # noqa: B018
    return session


def planned(request: Request) -> tuple[list[Cell], Suite]:
    """Return the cells of a request and the suite with its rows."""
    from ntbench.engine.plan import plan, with_rows

    added = [cls.name for plugin in request.plugins for cls in registry.load_plugin(plugin) if cls.kind == "defense"]
    suite = with_rows(request.resolved, request.defenses, () if request.defenses else added)
    return plan(suite), suite


def _prepare(cells: list[Cell], cache: Path) -> None:
    from ntbench.tasks.data import load_domain

    try:
        for task in dict.fromkeys(cell.task for cell in cells):
            for domain in (task.source, task.target):
                load_domain(domain, task.image_size, cache, task.train_samples, task.scored_samples)
    except (ValueError, OSError) as error:
        raise UserError(f"the data of {task.name!r} cannot be prepared: {error}") from None


def at_once(device: str) -> int:
    """Return how many small models to train at once: one on the CPU, where grouped convolutions are slow."""
    return 1 if device.partition(":")[0] == "cpu" else 16


def cache_folder() -> Path:
    """Return where built data sets are kept: NTBENCH_CACHE, or the user's cache folder."""
    return Path(os.environ.get("NTBENCH_CACHE") or Path.home() / ".cache" / "ntbench")
