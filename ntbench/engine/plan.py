"""A suite and a choice of rows and seeds become an ordered list of cells."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

from ntbench.domains import find
from ntbench.engine.manifest import Manifest, fingerprints
from ntbench.errors import UserError, unknown
from ntbench.learn.inception import check_inception
from ntbench.learn.models import build
from ntbench.learn.optim import check_optimizer, check_schedule
from ntbench.learn.sizes import settled
from ntbench.registry import registry
from ntbench.sources import file_digest, source_files, weights_file
from ntbench.suite import AttackEntry, DefenseEntry, Suite
from ntbench.tasks.objective import objective_of
from ntbench.types import CONTROLS, Budget, Cell, Epochs, Kind, Level, MethodSpec, Task, Training

T = TypeVar("T")


def with_rows(suite: Suite, chosen: Iterable[str], added: Iterable[str] = ()) -> Suite:
    """Return the suite with the chosen rows and the controls only; a defense that the suite lacks becomes a new row.

    Without a choice all rows stay. `added` rows come on top. Raises UserError on names that nothing registers.
    """
    wanted = list(dict.fromkeys([*chosen, *added]))
    known = {row for entry in suite.defenses for row in entry.rows}
    fresh = tuple(DefenseEntry(name=_registered("defense", name, known)) for name in wanted if name not in known)
    kept = (entry for entry in suite.defenses if not chosen or {*entry.rows} & {*wanted} or entry.name in CONTROLS)
    return suite.model_copy(update={"defenses": (*kept, *fresh)})


def with_arch(suite: Suite) -> Suite:
    """Return the suite with its architecture as it is built: sized where that is needed, code of one's own hashed.

    Raises UserError where it cannot be built, does not take the tasks' images, or would need several sizes.
    """
    sizes = list(dict.fromkeys(task.image_size for task in suite.tasks))
    archs = [_named("arch", partial(settled, suite.arch, size)) for size in sizes]
    if any(arch != archs[0] for arch in archs):
        raise UserError(
            f"arch: {suite.arch.name!r} needs another img_size for each of {sizes}; give all tasks one size"
        )
    return suite.model_copy(update={"arch": archs[0]})


def with_attacks(suite: Suite, chosen: Iterable[str], added: Iterable[str] = ()) -> Suite:
    """Return the suite with the chosen attacks only, by label or registered name; one that it lacks joins it.

    Without a choice all attacks stay. `added` ones come on top. What attackers who go by their own data fall back to
    stays in any case. Raises UserError on names that nothing registers.
    """
    wanted = list(dict.fromkeys([*chosen, *added]))
    known = {name for entry in suite.attacks for name in (entry.name, *(label for label, _ in entry.variants()))}
    fresh = tuple(AttackEntry(name=_registered("attack", name, known)) for name in wanted if name not in known)
    kept = {*wanted, *([suite.default] if suite.own else [])}
    held = (part for entry in suite.attacks for part in _chosen(entry, kept)) if chosen else suite.attacks
    return suite.model_copy(update={"attacks": (*held, *fresh)})


def _chosen(entry: AttackEntry, names: set[str]) -> list[AttackEntry]:
    """Return what of an entry is among the names, the entry itself where all of it is."""
    labels = [label for label, _ in entry.variants()]
    if entry.name in names or names.issuperset(labels):
        return [entry]
    return [single for label, single in zip(labels, entry.singles, strict=True) if label in names]


def plan(suite: Suite, tuned: Mapping[tuple[str, str], MethodSpec] = MappingProxyType({})) -> list[Cell]:
    """Return every cell of a suite, seed by seed; those that an attack refuses are among them and say so when they run.

    `tuned` holds recipes by the name of the task and the row that stand in place of those of the suite.
    Raises UserError on names that nothing stands for and on hyper-parameters that a method refuses.
    """
    return cells_of(examined(suite), tuned)


def cells_of(suite: Suite, tuned: Mapping[tuple[str, str], MethodSpec] = MappingProxyType({})) -> list[Cell]:
    """Return every cell of a suite whose network and domains need no examination, as `plan` does."""
    attacks = [(e, resolved("attack", e.name, params, label)) for e in suite.attacks for label, params in e.variants()]
    known = ("others", "own") if suite.own else ("others",)
    return [
        Cell(
            protocol=suite.protocol,
            task=task,
            arch=suite.arch,
            pretrain=start,
            defense=tuned.get((task.name, defense.label), defense),
            attack=attack,
            budget=budget_of(suite, task, level, entry, attack),
            samples=level.samples,
            seed=seed,
            source_share=suite.source_share,
            knowledge=knowledge,
            precision=suite.precision,
            objective=objective,
            scoring=suite.scoring,
        )
        for seed in suite.seeds
        for start, defenses in [(_start(suite, seed), _defenses(suite, seed))]
        for task in suite.tasks
        for objective in [suite.objective.on(task.domains)]
        for defense in defenses
        for entry, attack in attacks
        for level in task.levels
        for knowledge in (known[:1] if entry.protocol else known)
        if entry.faces(defense.label, defense.name)
    ]


def _defenses(suite: Suite, seed: int) -> list[MethodSpec]:
    return [
        resolved("defense", entry.name, entry.at(seed, params), label)
        for entry in suite.defenses
        for label, params in entry.variants()
    ]


def _start(suite: Suite, seed: int) -> Training:
    """Return what the defender's model begins with; a file stands in the recipe with its hash."""
    start = suite.start(seed)
    if start.weights in ("", "timm"):
        return start
    file = weights_file(Path(start.weights).expanduser())
    if not file.is_file():
        named = "pretrain.weights" if start.trained else "undefended"
        raise UserError(f"{named}: {start.weights!r} is not there; give the path of a file of weights")
    return start.model_copy(update={"sha256": file_digest(file)})


def budget_of(suite: Suite, task: Task, level: Level, entry: AttackEntry, attack: MethodSpec) -> Budget | Epochs:
    """Return what an attack may take at a sample count; raises UserError where nobody has measured T90 there."""
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
    attack, defense, objective = (
        registry.create(cell.attack),
        registry.create(cell.defense),
        objective_of(cell.objective),
    )
    return not (objective.refuses(defense) or objective.refuses(attack) or attack.refuses(defense, 1, 1))


def manifest(suite: Suite, request: str, cells: list[Cell]) -> Manifest:
    """Return what the run's folder is to hold."""
    methods: set[tuple[str, str]] = {(cell.defense.kind, cell.defense.name) for cell in cells} | {
        (cell.attack.kind, cell.attack.name) for cell in cells
    }
    methods |= {("domain", name) for name in {*_domains(suite)} & {*registry.names("domain")}}
    files = {str(file) for kind, name in methods for file in source_files(registry.get(kind, name))}
    given = [spec for cell in cells for spec in (cell.defense.params, dict(cell.pretrain)) if spec.get("sha256")]
    files |= {str(Path(spec["weights"]).expanduser()) for spec in given}
    files |= {str(Path(file).expanduser()) for file in (objective_of(suite.objective).features_file,) if file}
    return Manifest(
        suite=suite,
        request=request,
        sources=fingerprints(sorted(files)),
        cells={json.dumps(cell.coordinates): cell.key for cell in cells},
        asked=tuple(cell.key for cell in cells),
    )


def examined(suite: Suite) -> Suite:
    """Return the suite with its architecture as it is built.

    Raises UserError where nothing stands for the objective, the network, the training or a domain that it names.
    """
    _named("objective", lambda: _check_objective(suite))
    suite = with_arch(suite)
    _named("arch", lambda: _check_arch(suite))
    _named("pretrain.optimizer", lambda: check_optimizer(suite.pretrain.optimizer))
    _named("pretrain.schedule", lambda: check_schedule(suite.pretrain.schedule))
    for domain in _domains(suite):
        _named("tasks", partial(find, domain))
    return suite


def _check_objective(suite: Suite) -> None:
    if file := objective_of(suite.objective).features_file:
        check_inception(file)


def _check_arch(suite: Suite) -> None:
    model = build(suite.arch, classes=2, seed=0)
    if reason := objective_of(suite.objective).unfit(model):
        raise UserError(f"{reason}; name another architecture, or another objective")


def _domains(suite: Suite) -> list[str]:
    return list(dict.fromkeys(name for task in suite.tasks for name in task.domains))


def _named(key: str, check: Callable[[], T]) -> T:
    try:
        return check()
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


def _registered(kind: Kind, name: str, known: set[str]) -> str:
    if name not in registry.names(kind):
        raise unknown(kind, name, {*registry.names(kind), *known})
    return name


def resolved(kind: Kind, name: str, params: dict[str, Any], label: str) -> MethodSpec:
    """Return the recipe of a method; raises UserError on names and hyper-parameters that nothing stands for."""
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
