"""A suite and a choice of rows and seeds become an ordered list of cells."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pydantic import ValidationError

from ntbench.domains import find
from ntbench.engine.manifest import Manifest, fingerprints
from ntbench.errors import UserError, unknown
from ntbench.learn.models import build, head
from ntbench.learn.optim import check_optimizer, check_schedule
from ntbench.registry import registry
from ntbench.sources import source_files
from ntbench.suite import AttackEntry, DefenseEntry, Suite
from ntbench.types import CONTROLS, Budget, Cell, Epochs, Kind, Level, MethodSpec, Task


def with_rows(suite: Suite, chosen: Iterable[str], added: Iterable[str] = ()) -> Suite:
    """Return the suite with the chosen rows and the controls only; a defense that the suite lacks becomes a new row.

    Without a choice all rows stay. `added` rows come on top. Raises UserError on names that nothing registers.
    """
    wanted = list(dict.fromkeys([*chosen, *added]))
    known = {row for entry in suite.defenses for row in entry.rows}
    fresh = tuple(DefenseEntry(name=_registered(name, known)) for name in wanted if name not in known)
    kept = (entry for entry in suite.defenses if not chosen or {*entry.rows} & {*wanted} or entry.name in CONTROLS)
    return suite.model_copy(update={"defenses": (*kept, *fresh)})


def plan(suite: Suite) -> list[Cell]:
    """Return every cell of a suite, seed by seed; those that an attack refuses are among them and say so when they run.

    Raises UserError on names that nothing stands for and on hyper-parameters that a method refuses.
    """
    _examine(suite)
    defenses = [_build("defense", e.name, params, label) for e in suite.defenses for label, params in e.variants()]
    attacks = [(e, _build("attack", e.name, params, label)) for e in suite.attacks for label, params in e.variants()]
    known = ("others", "own") if suite.own else ("others",)
    return [
        Cell(
            protocol=suite.protocol,
            task=task,
            arch=suite.arch,
            pretrain=suite.pretrain,
            defense=defense,
            attack=attack,
            budget=_budget(suite, task, level, entry, attack),
            samples=level.samples,
            seed=seed,
            source_share=suite.source_share,
            knowledge=knowledge,
            precision=suite.precision,
        )
        for seed in suite.seeds
        for task in suite.tasks
        for defense in defenses
        for entry, attack in attacks
        for level in task.levels
        for knowledge in (known[:1] if entry.protocol else known)
        if entry.faces(defense.label, defense.name)
    ]


def _budget(suite: Suite, task: Task, level: Level, entry: AttackEntry, attack: MethodSpec) -> Budget | Epochs:
    if entry.protocol is None:
        return Budget(t90=_t90(task, level), horizon=suite.horizon, ratio=suite.scored)
    if "batch_size" not in attack.params:
        raise UserError(
            f"attack {attack.label!r}: protocol: {attack.name} has no batches to count passes by; remove it"
        )
    return Epochs.of(level.samples, attack.params["batch_size"], **entry.protocol.model_dump())


def _t90(task: Task, level: Level) -> float:
    if level.t90 is None:
        raise UserError(
            f"{task.name}: nobody has measured T90 at {level.samples} samples; `ntbench calibrate` does it for a suite"
        )
    return level.t90


def applies(cell: Cell) -> bool:
    """Return whether the attack takes on the defense, the classes of the two domains aside."""
    return not registry.create(cell.attack).refuses(registry.create(cell.defense), 1, 1)


def manifest(suite: Suite, request: str, cells: list[Cell]) -> Manifest:
    """Return what the run's folder is to hold."""
    methods = {(cell.defense.kind, cell.defense.name) for cell in cells} | {
        (cell.attack.kind, cell.attack.name) for cell in cells
    }
    files = sorted({str(file) for kind, name in methods for file in source_files(registry.get(kind, name))})
    return Manifest(
        suite=suite,
        request=request,
        sources=fingerprints(files),
        cells={json.dumps(cell.coordinates): cell.key for cell in cells},
        asked=tuple(cell.key for cell in cells),
    )


def _examine(suite: Suite) -> None:
    _named("arch", lambda: head(build(suite.arch, classes=2, seed=0)))
    _named("pretrain.optimizer", lambda: check_optimizer(suite.pretrain.optimizer))
    _named("pretrain.schedule", lambda: check_schedule(suite.pretrain.schedule))
    for domain in dict.fromkeys(name for task in suite.tasks for name in (task.source, task.target, *task.guarded)):
        _named("tasks", partial(find, domain))


def _named(key: str, check: Callable[[], object]) -> None:
    try:
        check()
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


def _registered(name: str, rows: set[str]) -> str:
    if name not in registry.names("defense"):
        raise unknown("defense", name, {*registry.names("defense"), *rows})
    return name


def _build(kind: Kind, name: str, params: dict[str, Any], label: str) -> MethodSpec:
    cls = registry.get(kind, name)
    try:
        spec: MethodSpec = cls(**params).spec(label)
        return spec
    except ValidationError as error:
        item = error.errors()[0]
        key = ".".join(map(str, item["loc"]))
        if item["type"] == "extra_forbidden":
            raise unknown(f"hyper-parameter of {kind} {name!r}:", key, cls.model_fields) from None
        raise UserError(f"{kind} {label!r}: {key} = {item['input']!r}: {item['msg']}") from None
