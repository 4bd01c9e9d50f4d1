"""Tuning: every defense of a suite has as many trials to find its hyper-parameters for a task, before it is judged.

A trial plays the task with what one defender holds, on a seed of its own that no board uses: it protects with the
values that it tries, and faces a few attacks that the board does not have. The best has the least uplift among those
that keep the source within the suite's limit, paired by image. A trial is a set of cells like any other, kept in the
run's folder: whoever asks again gets the same trials, and those that have run cost nothing.

Another seed is another division of the target's training images: those by which one defender tunes may be an attacker's
on a board. Hyper-parameters alone pass from one to the other, and no test image is seen by either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ntbench.engine.calibrate import Compute
from ntbench.engine.plan import plan, resolved
from ntbench.engine.rehearsal import Rehearsal
from ntbench.engine.space import space_of
from ntbench.engine.trials import SEED, Search
from ntbench.errors import UserError
from ntbench.registry import registry
from ntbench.suite import AttackEntry, DefenseEntry, PaperSetting, Suite
from ntbench.types import Cell, Level, MethodSpec, Task
from ntbench.types import Rehearsal as Kind

HORIZON = 8.0
"""The most units of T90 that attacks on trials take."""
COUNTS = 2
"""At so many sample counts, the largest that the attackers' pool has."""
RIVALS = tuple(
    AttackEntry(name="finetune", label=label, params=params)
    for label, params in {
        "adam": {"optimizer": "adam", "lr": 4e-3},
        "momentum": {"optimizer": "momentum", "lr": 2e-2},
        "new head": {"init": "reinit", "optimizer": "adam", "lr": 6e-3},
    }.items()
)
"""The attacks that trials face; those that a suite has itself are left out."""
Found = dict[tuple[str, str], MethodSpec]
"""The recipe of every tuned defense, by the name of the task and the row."""


def tuned(suite: Suite, folder: Path | None, compute: Compute, tell: Callable[[str], None]) -> Found:
    """Return every defense that has something to tune with what its trials found; all go a trial on together.

    The folder is the cache of data sets.
    """
    running = list(searches(suite, folder))
    for _ in range(suite.tuned if running else 0):
        asked = [search.ask() for search in running]
        results = {r.cell.key: r for r in compute(_once(asked))}
        for search, cells in zip(running, asked, strict=True):
            search.tell([results[cell.key] for cell in cells])
    for search in running:
        tell(str(search))
    return {(search.task.name, search.row): search.spec for search in running}


def _once(asked: list[list[Cell]]) -> list[Cell]:
    """Return every cell once: the baselines are the same for all trials."""
    return list({cell.key: cell for cells in asked for cell in cells}.values())


def searches(suite: Suite, folder: Path | None) -> Iterator[Search]:
    """Yield a search for every row of every task whose defense has something to tune and something to tune it on.

    Where rows come as files, the model that a defense would be given is a file too: nothing can be rehearsed.
    """

    @cache
    def played(place: int, kind: Kind) -> Suite:
        return rehearsed(suite, suite.tasks[place], kind, folder)

    for place, task in enumerate(() if suite.releases else suite.tasks):
        for entry in suite.defenses:
            cls = registry.get("defense", entry.name)
            kind, axes = granted(cls, task), space_of(cls)
            for row, stated in entry.variants() if kind else []:
                left = {field: axis for field, axis in axes.items() if field not in stated}
                if kind and left:
                    yield Search(played(place, kind), row, entry.name, stated, left)


def granted(cls: Any, task: Task) -> Kind | None:
    """Return what a defense may rehearse a task on: the target where it has its labels, else the source, or nothing."""
    if not cls.needs_source or (cls.needs_target and not task.guarded):
        return None
    return "target" if cls.needs_target_labels else "source"


def rehearsed(suite: Suite, task: Task, kind: Kind, folder: Path | None) -> Suite:
    """Return the suite of a rehearsal, with the rows to compare a trial with."""
    played, rivals = task.model_copy(update={"rehearsal": kind}), _rivals(suite)
    inner = suite.model_copy(
        update={
            "name": f"{suite.name}_tuning",
            "seeds": (SEED,),
            "horizon": min(suite.horizon, HORIZON),
            "own": False,
            "tuned": 0,
            "paper": PaperSetting(attack=rivals[0].label),
            "tasks": (played,),
            "defenses": (DefenseEntry(name="none"), DefenseEntry(name="scratch")),
            "attacks": rivals,
        }
    )
    pool = len(Rehearsal(plan(inner)[0], folder).pool)
    return inner.model_copy(update={"tasks": (played.model_copy(update={"levels": _levels(task, pool)}),)})


def _rivals(suite: Suite) -> tuple[AttackEntry, ...]:
    own = [_recipe(entry.name, params) for entry in suite.attacks for _, params in entry.variants()]
    rivals = tuple(rival for rival in RIVALS if _recipe(rival.name, rival.params) not in own)
    if not rivals:
        raise UserError(f"{suite.protocol} has every attack that tuning goes by; leave out {RIVALS[0].params}")
    return rivals


def _recipe(name: str, params: dict[str, Any]) -> dict[str, Any]:
    return resolved("attack", name, params, "").recipe()


def _levels(task: Task, pool: int) -> tuple[Level, ...]:
    """Return the largest sample counts of a task that a pool has, or parts of the pool where that is too small."""
    fitting = tuple(level for level in task.levels if level.samples <= pool)[-COUNTS:]
    if len(fitting) == COUNTS:
        return fitting
    return tuple(task.levels[0].model_copy(update={"samples": max(1, pool // part)}) for part in (4, 1))
