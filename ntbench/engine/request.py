"""What a command asks for, and where it is to run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ntbench.registry import registry
from ntbench.suite import Suite, load_suite
from ntbench.types import Kind, digest

if TYPE_CHECKING:
    from ntbench.measure.registered import Registered
    from ntbench.measure.standing import Study


LANES = 32
"""Cells that train side by side on an accelerator, where nobody says how many."""


@dataclass(frozen=True)
class Request:
    """What a command asks for; a suite by its name or file, or one that the command composed."""

    suite: str | Suite
    defenses: tuple[str, ...] = ()
    attacks: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    tasks: tuple[str, ...] = ()
    horizon: float = 0.0
    """The largest budget in units of T90, in place of the suite's."""

    @cached_property
    def resolved(self) -> Suite:
        """Return the suite with the seeds, tasks and horizon that are asked for."""
        suite = self.suite if isinstance(self.suite, Suite) else load_suite(self.suite)
        suite = suite.model_copy(update={"seeds": self.seeds}) if self.seeds else suite
        suite = suite.model_copy(update={"horizon": self.horizon}) if self.horizon else suite
        return suite.with_tasks(self.tasks) if self.tasks else suite

    @property
    def chosen(self) -> tuple[tuple[Kind, tuple[str, ...]], ...]:
        """Return the names that are asked for, of each kind of method."""
        return ("defense", self.defenses), ("attack", self.attacks)

    @cached_property
    def key(self) -> str:
        """Return what tells two requests apart, without importing any method."""
        plugins = [str(Path(plugin).resolve()) for plugin in self.plugins]
        return digest([self.resolved.model_dump(mode="json"), self.defenses, self.attacks, plugins])


@dataclass(frozen=True)
class Workers:
    """Where cells run."""

    jobs: int = 1
    device: str = "cpu"
    dask: str = ""
    sandbox: bool = False
    lanes: int = 0
    """Cells that train side by side; 0 for what suits the device."""

    @property
    def side_by_side(self) -> int:
        """Return how many cells train side by side at most."""
        return self.lanes or (1 if self.device.partition(":")[0] == "cpu" else LANES)


def take_in(plugins: Sequence[str]) -> None:
    """Learn what plug-ins hold, without running their code here.

    Raises UserError on files that hold nothing that can be used, and on metrics that cannot be columns.
    """
    from ntbench.engine.foreign import open_door
    from ntbench.measure.registered import known

    open_door()
    for plugin in plugins:
        registry.load_plugin(plugin)
    known()


def registered(study: Study, plugins: Sequence[str]) -> Registered:
    """Return what metrics give for the rows of a study: those of plug-ins, of other packages, and of this process."""
    from ntbench.measure.registered import known, measured

    if plugins or registry.packages():
        take_in(plugins)
    return measured(study, known())


def rows_of(request: Request, suite: Suite) -> Suite:
    """Return a suite with the rows and attacks that a request asks for."""
    from ntbench.engine.plan import with_arch, with_attacks, with_rows

    found = [cls for plugin in request.plugins for cls in registry.load_plugin(plugin)]
    added = {kind: () if asked else [cls.name for cls in found if cls.kind == kind] for kind, asked in request.chosen}
    suite = with_rows(suite, request.defenses, added["defense"])
    return with_arch(with_attacks(suite, request.attacks, added["attack"]))
