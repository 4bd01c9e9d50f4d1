"""One command on one run's folder: plan or resume, measure what the plan lacks, execute, and tell where it stands."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.console import Console

from ntbench.engine.manifest import Manifest, read_manifest
from ntbench.engine.progress import tally
from ntbench.engine.store import Store
from ntbench.errors import UserError
from ntbench.registry import registry
from ntbench.suite import Limits, Suite, load_suite
from ntbench.types import SETTLED, Cell, Level, Result, digest

TOLD = 10
"""How many failed cells are named on a terminal."""


@dataclass(frozen=True)
class Request:
    """What a command asks for."""

    suite: str
    defenses: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    tasks: tuple[str, ...] = ()
    horizon: float = 0.0
    """The largest budget in units of T90, in place of the suite's."""

    @cached_property
    def resolved(self) -> Suite:
        """Return the suite with the seeds, tasks and horizon that are asked for."""
        suite = load_suite(self.suite)
        suite = suite.model_copy(update={"seeds": self.seeds}) if self.seeds else suite
        suite = suite.model_copy(update={"horizon": self.horizon}) if self.horizon else suite
        return suite.with_tasks(self.tasks) if self.tasks else suite

    @cached_property
    def key(self) -> str:
        """Return what tells two requests apart, without importing any method."""
        plugins = [str(Path(plugin).resolve()) for plugin in self.plugins]
        return digest([self.resolved.model_dump(mode="json"), self.defenses, plugins])


@dataclass(frozen=True)
class Workers:
    """Where cells run."""

    jobs: int = 1
    device: str = "cpu"
    dask: str = ""


class Session:
    """What commands do in one run's folder."""

    def __init__(self, folder: Path, console: Console) -> None:
        """Name the folder; nothing is read or created yet."""
        self.folder, self.console = folder, console
        self.store = Store(folder)

    @property
    def suite(self) -> Suite:
        """Return the suite of the folder's plan."""
        return self._manifest().suite

    @property
    def stamp(self) -> str:
        """Return what changes with the folder's plan and with its results: a page made of another stamp is stale."""
        statuses = self.store.statuses()
        cells = self._manifest().cells
        return digest([cells, {key: statuses.get(key) for key in cells.values()}])

    @property
    def page(self) -> Path:
        """Return where the report's page lies or would lie."""
        return self.folder / "report" / "index.html"

    def page_is_current(self) -> bool:
        """Return whether the page was made from the plan and the results as they are now."""
        mark = self.page.with_name("made_from.txt")
        return self.page.exists() and mark.exists() and mark.read_text(encoding="utf-8") == self.stamp

    def mark_page(self) -> None:
        """Remember what the page was made from."""
        self.page.with_name("made_from.txt").write_text(self.stamp, encoding="utf-8")

    @staticmethod
    def failures(results: list[Result]) -> str:
        """Return the cells that failed, with their reasons, or an empty string."""
        failed = [result for result in results if result.status not in SETTLED]
        if not failed:
            return ""
        lines = [f"  {r.status}: {', '.join(map(str, r.cell.coordinates[:6]))}: {first_line(r.error)}" for r in failed]
        more = [f"  and {len(lines) - TOLD} more"] if len(lines) > TOLD else []
        head = f"{len(failed)} of {len(results)} cells failed; `--retry-failed` runs them again:"
        return "\n".join([head, *lines[:TOLD], *more])

    def results(self) -> list[Result]:
        """Return the stored results that belong to the folder's plan, under the labels that they have there."""
        places = self._manifest().places
        return [relabelled(r, *places[r.cell.key]) for r in self.store.results() if r.cell.key in places]

    def run(self, request: Request, workers: Workers, retry_failed: bool = False) -> None:
        """Compute what a request asks for and the folder lacks."""
        asked = request.key  # reads the suite: a mistake in it leaves no folder behind
        with self.store.writing():
            held = read_manifest(self.folder)
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
        from ntbench.engine.calibrate import calibrated

        def compute(cells: list[Cell]) -> list[Result]:
            store = Store(self.folder / "calibration")
            with store.writing():
                done = store.statuses()
                missing = [cell for cell in cells if cell.key not in done]
                self._execute(missing, len(cells), workers, store, suite.limits)
            keys = {cell.key for cell in cells}
            return [result for result in store.results() if result.cell.key in keys]

        return calibrated(suite, compute, lambda line: self.console.print(line, highlight=False))

    def measured(self, request: Request, workers: Workers) -> Suite:
        """Return a request's suite with every T90 and plateau measured anew."""
        suite = request.resolved
        bare = tuple(
            task.model_copy(update={"levels": tuple(Level(samples=level.samples) for level in task.levels)})
            for task in suite.tasks
        )
        return self.calibrated(suite.model_copy(update={"tasks": bare}), workers)

    def estimate(self, request: Request, workers: Workers) -> None:
        """Print how many cells of a request are left and about how long they take."""
        from ntbench.engine.calibrate import guessed
        from ntbench.engine.estimate import seconds_per_cell
        from ntbench.engine.plan import applies
        from ntbench.learn.models import check_device

        check_device(workers.device)
        cells, _ = planned(request, guessed(request.resolved))
        done = self.store.statuses()
        missing = [cell for cell in cells if cell.key not in done and applies(cell)]
        protections = len({cell.protect_key for cell in missing})
        seconds = sum(seconds_per_cell(cell, workers.device) for cell in missing) / workers.jobs
        about = "at most" if any(getattr(cell.budget, "patience", 0) for cell in missing) else "about"
        self.console.print(
            f"{len(missing)} of {len(cells)} cells to run, {protections} protections: {about} {seconds / 60:.1f} "
            f"minutes for the cells on {workers.jobs} workers, and the defenses' own training on top"
        )

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

    def _plan(self, request: Request, held: Manifest | None, workers: Workers) -> list[Cell]:
        from ntbench.engine.foreign import open_door
        from ntbench.engine.plan import manifest

        open_door()
        suite = self.calibrated(request.resolved, workers)
        with self.console.status("planning"):
            cells, suite = planned(request, suite)
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

    def _execute(self, missing: list[Cell], total: int, workers: Workers, store: Store, limits: Limits) -> None:
        from ntbench.engine.grid import Settings, execute
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
        )
        with self.console.status("preparing the data"):
            _prepare(missing, settings.cache)
        protections = len({cell.protect_key for cell in missing})
        with tally(self.console, protections, total, total - len(missing)) as shown:
            for result in execute(missing, settings, shown.protection):
                store.add(result)
                shown.cell(result)


def open_run(folder: Path, console: Console) -> Session:
    """Return a session that reads a finished or interrupted run."""
    session = Session(folder, console)
    session.suite  # noqa: B018
    return session


def planned(request: Request, suite: Suite) -> tuple[list[Cell], Suite]:
    """Return the cells of a request on a suite, and the suite with its rows."""
    from ntbench.engine.plan import plan, with_rows

    added = [cls.name for plugin in request.plugins for cls in registry.load_plugin(plugin) if cls.kind == "defense"]
    suite = with_rows(suite, request.defenses, () if request.defenses else added)
    return plan(suite), suite


def _prepare(cells: list[Cell], cache: Path) -> None:
    """Build all data before any worker asks for it, and see that every task has the samples that are asked of it."""
    from ntbench.engine.shares import Shares

    for cell in {(cell.task.name, cell.samples): cell for cell in cells}.values():
        shares = Shares(cell, cache)
        try:
            shares.source, shares.defenders, shares.owned  # noqa: B018
        except (ValueError, OSError) as error:
            raise UserError(f"the data of {cell.task.title!r} cannot be prepared: {error}") from None


def relabelled(result: Result, defense: str, attack: str) -> Result:
    """Return a result whose methods have these labels, which are no part of a recipe."""
    cell = result.cell
    if (cell.defense.label, cell.attack.label) == (defense, attack):
        return result
    named = {"defense": (cell.defense, defense), "attack": (cell.attack, attack)}
    update = {name: spec.model_copy(update={"label": label}) for name, (spec, label) in named.items()}
    return result.model_copy(update={"cell": cell.model_copy(update=update)})


def first_line(text: str) -> str:
    """Return the first line of an error."""
    return text.strip().partition("\n")[0]


def cache_folder() -> Path:
    """Return where built data sets are kept: NTBENCH_CACHE, or the user's cache folder."""
    return Path(os.environ.get("NTBENCH_CACHE") or Path.home() / ".cache" / "ntbench")
