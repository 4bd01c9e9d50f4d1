"""One command on one run's folder: plan or resume, measure what the plan lacks, execute, and tell where it stands."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError
from rich.console import Console

from ntbench import __version__
from ntbench.engine.manifest import Manifest, fingerprints, let_go, read_manifest, read_suite
from ntbench.engine.progress import lasting, tally
from ntbench.engine.request import Request, Workers, rows_of, take_in
from ntbench.engine.store import Store
from ntbench.engine.told import Told
from ntbench.errors import UserError
from ntbench.registry import registry
from ntbench.report.files import write_whole
from ntbench.suite import Limits, Suite
from ntbench.types import SETTLED, Cell, Columns, Level, Result, digest

if TYPE_CHECKING:
    from ntbench.engine.tune import Found

T = TypeVar("T")


class Session:
    """What commands do in one run's folder."""

    def __init__(self, folder: Path, console: Console, plugins: Sequence[str] = ()) -> None:
        """Name the folder, and the plug-ins whose metrics stand on its page; nothing is read or created yet."""
        self.folder, self.console, self.plugins = folder, console, tuple(str(Path(file).resolve()) for file in plugins)
        self.store = Store(folder)

    @property
    def suite(self) -> Suite:
        """Return the suite of the folder's plan."""
        return self._there(read_suite(self.folder))

    @property
    def stamp(self) -> str:
        """Return what changes with plan, results and what may bring metrics: a page made of another stamp is stale."""
        statuses = self.store.statuses()
        cells = self._manifest().cells
        brought = [fingerprints(list(self.plugins)), registry.packages()]
        return digest([__version__, cells, {key: statuses.get(key) for key in cells.values()}, brought])

    @property
    def page(self) -> Path:
        """Return where the report's page lies or would lie."""
        return self.folder / "report" / "index.html"

    def page_is_current(self) -> bool:
        """Return whether the page was made from the plan and the results as they are now."""
        return self.told() is not None

    def told(self) -> Told | None:
        """Return what was told when the page was made, or None where there is none or it is stale."""
        try:
            told = Told.model_validate_json(self._mark.read_bytes())
        except (OSError, ValidationError):
            return None
        return told if self.page.exists() and told.stamp == self.stamp else None

    def mark_page(self, board: str = "", failures: str = "") -> None:
        """Remember what the page was made from, and what was told of it."""
        told = Told(stamp=self.stamp, board=board, failures=failures)
        write_whole(self._mark, told.model_dump_json().encode())

    @property
    def _mark(self) -> Path:
        return self.page.with_name("told.json")

    def results(self) -> Columns:
        """Return the stored results that belong to the folder's plan, under the labels that they have there."""
        held = self._manifest().labelled(self.store.results())
        let_go()
        return held

    def run(self, request: Request, workers: Workers, retry_failed: bool = False) -> None:
        """Compute what a request asks for and the folder lacks."""
        asked = request.key  # reads the suite: a mistake in it leaves no folder behind
        with self.store.writing():
            held = self.held()
            statuses = self.store.statuses()
            if retry_failed:
                statuses = self._forget_failed(statuses)
            if held and held.answers(asked) and statuses.keys() >= set(held.asked):
                self.console.print(f"nothing to do: all {len(held.asked)} cells are in {self.folder}")
                return
            cells = self._plan(request, held, workers)
            missing = [cell for cell in cells if cell.key not in statuses]
            self._execute(missing, len(cells), workers, self.store, self.suite.limits)

    def calibrated(self, suite: Suite, workers: Workers) -> Suite:
        """Return the suite with T90 and plateau measured on seeds of their own wherever it has none."""
        from ntbench.engine.anchor import anchored
        from ntbench.engine.plan import examined

        compute = self.laboratory("calibration", suite.limits, workers)
        return anchored(examined(suite), compute, self._say, cache_folder())

    def tuned(self, suite: Suite, workers: Workers) -> Found:
        """Return by task and row the recipes that tuning found, none where the suite does not ask for it."""
        if not suite.tuned:
            return {}
        from ntbench.engine.tune import tuned

        return tuned(suite, cache_folder(), self.laboratory("tuning", suite.limits, workers), self._say)

    def tune(self, request: Request, trials: int, workers: Workers) -> Found:
        """Return what so many trials find for the rows that a request names, and for no others.

        Raises UserError where there is nothing to tune.
        """
        take_in(request.plugins)
        suite = rows_of(request, self.calibrated(request.resolved, workers))
        rows = tuple(entry for entry in suite.defenses if {entry.name, *entry.rows} & {*request.defenses})
        found = self.tuned(suite.model_copy(update={"defenses": rows, "tuned": trials}), workers)
        if not found:
            raise UserError(
                f"{', '.join(request.defenses)}: nothing to tune in {suite.protocol}; name a defense with fields that "
                "the suite leaves open, and a task of which it holds data"
            )
        return found

    def laboratory(self, name: str, limits: Limits, workers: Workers) -> Callable[[list[Cell]], list[Result]]:
        """Return what computes cells, or finds them done, and keeps them in a part of the folder, or in all of it."""

        def compute(cells: list[Cell]) -> list[Result]:
            store = Store(self.folder / name)
            with store.writing():
                done = store.statuses()
                missing = [cell for cell in cells if cell.key not in done]
                if missing:
                    self._execute(missing, len(cells), workers, store, limits)
            keys = {cell.key for cell in cells}
            return [result for result in store.results() if result.cell.key in keys]

        return compute

    def protect(self, cells: list[Cell], limits: Limits, workers: Workers) -> None:
        """Make the releases that cells attack, where the folder lacks them, and attack nothing."""
        with self.store.writing():
            missing = [cell for cell in cells if not self.store.artifact_path(cell.protect_key).exists()]
            if missing:
                self._execute(missing, len(missing), workers, self.store, limits, attack=False)

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False)

    def measured(self, request: Request, workers: Workers) -> Suite:
        """Return a request's suite with every T90 and plateau measured anew."""
        from ntbench.engine.releases import prepared

        take_in(request.plugins)
        suite = prepared(request.resolved)
        bare = tuple(
            task.model_copy(update={"levels": tuple(Level(samples=level.samples) for level in task.levels)})
            for task in suite.tasks
        )
        return self.calibrated(suite.model_copy(update={"tasks": bare}), workers)

    def estimate(self, request: Request, workers: Workers) -> None:
        """Print how many cells of a request are left and about how long they take."""
        from ntbench.engine.calibrate import guessed
        from ntbench.engine.estimate import seconds_per_cell
        from ntbench.engine.plan import applies, plan
        from ntbench.learn.models import check_device

        check_device(workers.device)
        suite = rows_of(request, guessed(self._examined(request, workers)))
        cells = plan(suite)
        done = self.store.statuses()
        missing = [cell for cell in cells if cell.key not in done and applies(cell)]
        protections = len({cell.protect_key for cell in missing})
        seconds = sum(seconds_per_cell(cell, workers.device) for cell in missing) / workers.jobs
        if suite.tuned:
            self.console.print(f"before them {suite.tuned} trials for each defense on each task that can be tuned")
        about = "at most" if any(getattr(cell.budget, "patience", 0) for cell in missing) else "about"
        self.console.print(
            f"{len(missing)} of {len(cells)} cells to run, {protections} protections: {about} "
            f"{lasting(seconds)} for the cells on {workers.jobs} workers, and the defenses' own training on top"
        )

    def say_where_it_stands(self) -> None:
        """Print what an interruption left behind."""
        self.console.print(
            f"\ninterrupted: {len(self.store.statuses())} finished cells are safe in {self.folder}; "
            "the same command goes on from there"
        )

    def held(self) -> Manifest | None:
        """Return the folder's plan, or None where there is none."""
        return read_manifest(self.folder)

    def _manifest(self) -> Manifest:
        return self._there(self.held())

    def _there(self, held: T | None) -> T:
        if held is None:
            raise UserError(f"{str(self.folder)!r} holds no run; start one with `ntbench run SUITE --out FOLDER`")
        return held

    def planned(self, request: Request, workers: Workers) -> tuple[Suite, list[Cell]]:
        """Return the suite that a request asks for, with all that it lacked measured, and its cells."""
        from ntbench.engine.plan import plan

        take_in(request.plugins)
        suite = rows_of(request, self.calibrated(self._examined(request, workers), workers))
        found = self.tuned(suite, workers)
        with self.console.status("planning"):
            return suite, plan(suite, found)

    def _examined(self, request: Request, workers: Workers) -> Suite:
        """Return the suite of a request whose files of weights, if it has any, fit and do what their owners state."""
        from ntbench.engine.releases import examine, prepared

        suite = prepared(request.resolved)
        if suite.releases:
            examine(suite, cache_folder(), "cpu" if workers.dask else workers.device, self._say)
        return suite

    def _plan(self, request: Request, held: Manifest | None, workers: Workers) -> list[Cell]:
        from ntbench.engine.plan import manifest

        suite, cells = self.planned(request, workers)
        manifest(suite, request.key, cells).after(held).write(self.folder)
        return cells

    def _forget_failed(self, statuses: dict[str, str]) -> dict[str, str]:
        failed = self.store.results().failed
        for result in failed:
            if result.protection and result.protection.status != "ok":
                self.store.forget_artifact(result.cell.protect_key)
                self.store.forget_artifact(result.cell.pretrain_key)
        self.store.forget(result.cell.key for result in failed)
        return {key: status for key, status in statuses.items() if status in SETTLED}

    def _execute(
        self, missing: list[Cell], total: int, workers: Workers, store: Store, limits: Limits, attack: bool = True
    ) -> None:
        from ntbench.engine.grid import Settings, execute
        from ntbench.engine.prepared import prepared
        from ntbench.learn.models import check_device

        if not workers.dask:
            check_device(workers.device)
        settings = Settings(
            folder=store.folder.resolve(),
            cache=cache_folder(),
            limits=limits,
            jobs=workers.jobs,
            device=workers.device,
            dask=workers.dask,
            plugins=registry.plugins,
            sandbox=workers.sandbox,
            attack=attack,
            lanes=workers.side_by_side,
        )
        with self.console.status("preparing the data"):
            remarks = prepared(missing, settings.cache, store.results())
        for remark in remarks:
            self.console.print(remark, highlight=False, markup=False, soft_wrap=True)
        protections = len({cell.protect_key for cell in missing})
        with tally(self.console, protections, total, total - len(missing)) as shown:
            for result in execute(missing, settings, shown.protection):
                store.add(result)
                shown.cell(result)


def open_run(folder: Path, console: Console, plugins: Sequence[str] = ()) -> Session:
    """Return a session that reads a finished or interrupted run."""
    session = Session(folder, console, plugins)
    session.suite  # noqa: B018
    return session


def cache_folder() -> Path:
    """Return where built data sets are kept: NTBENCH_CACHE, or the user's cache folder."""
    return Path(os.environ.get("NTBENCH_CACHE") or Path.home() / ".cache" / "ntbench")
