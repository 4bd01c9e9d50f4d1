"""A zoo: all releases of a suite with their clean models and cards, in a folder that a run can go on in."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from pydantic import ValidationError

from ntbench.engine.bench import Bench
from ntbench.engine.export import card_of
from ntbench.engine.plan import budget_of, manifest, resolved
from ntbench.engine.request import Request, Workers, rows_of
from ntbench.engine.session import Session, cache_folder
from ntbench.engine.store import Store
from ntbench.errors import UserError
from ntbench.learn.cards import read_card, write_release
from ntbench.learn.models import read_weights
from ntbench.registry import registry
from ntbench.report.files import write_whole
from ntbench.sources import code_digest
from ntbench.suite import AttackEntry, Suite
from ntbench.types import Cell, Protection, Provenance, Recipe, Result

INDEX = "zoo.json"


class Kept(Recipe):
    """A release of a zoo: a cell that attacks it, by any attack, the hash of its weights, and what is known of it."""

    cell: Cell
    sha256: str
    protection: Protection
    provenance: Provenance


class Zoo(Recipe):
    """The releases of a suite, whose budgets and sample counts attackers have."""

    suite: Suite
    releases: tuple[Kept, ...]


def read_zoo(folder: Path) -> Zoo:
    """Return the index of a zoo; raises UserError where there is none, or it is damaged."""
    file = folder / INDEX
    if not file.exists():
        raise UserError(f"{str(folder)!r} holds no zoo; make one with `ntbench zoo RUN_OR_SUITE --out FOLDER`")
    try:
        return Zoo.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise UserError(f"{str(file)!r} is damaged ({error.errors()[0]['msg']}); make the zoo again") from None


def build(session: Session, suite: Suite, cells: Iterable[Cell], workers: Workers, run: Store | None = None) -> Zoo:
    """Fill a folder with the releases that cells attack, copied from a run or made from their recipes.

    What lies there and matches its card is kept. Releases whose protection failed are told and left out. Raises
    UserError where a release must be made again and the code of its method is not that of its recipe any more.
    """
    first = list({(cell.task.name, cell.defense.label, cell.seed): cell for cell in cells}.values())
    for key in dict.fromkeys(key for cell in first for key in (cell.pretrain_key, cell.protect_key)):
        _settle(session.store, key, run)
    lacking = [cell for cell in first if not session.store.artifact_path(cell.protect_key).exists()]
    _check_code(lacking)
    session.protect(lacking, suite.limits, workers)
    origins: dict[str, Provenance] = {}
    releases = [kept for cell in first if (kept := _kept(session, cell, origins))]
    zoo = Zoo(suite=suite, releases=tuple(releases))
    write_whole(session.folder / INDEX, zoo.model_dump_json().encode())
    return zoo


def attack(session: Session, zoo: Zoo, request: Request, workers: Workers) -> list[Result]:
    """Return what the attacks of a request reach on every release of a zoo, computing what its folder lacks.

    Nothing is protected. Raises UserError where a release is not there, or not that of its card.
    """
    suite = rows_of(request, zoo.suite.model_copy(update={"own": False})).model_copy(update={"own": zoo.suite.own})
    cells = _cells(zoo, suite, suite.attacks)
    for kept in zoo.releases:
        card = read_card(session.store.artifact_path(kept.cell.protect_key))
        if card.get("sha256") != kept.sha256:
            raise UserError(f"{_name(kept.cell)} is not in {str(session.folder)!r} as it was; make the zoo again")
    with session.store.writing():
        manifest(suite, request.key, cells).after(session.held()).write(session.folder)
    return session.laboratory("", suite.limits, workers)(cells)


def _cells(zoo: Zoo, suite: Suite, attacks: Sequence[AttackEntry]) -> list[Cell]:
    specs = [(e, resolved("attack", e.name, params, label)) for e in attacks for label, params in e.variants()]
    return [
        Cell(
            **dict(kept.cell)
            | {
                "attack": spec,
                "budget": budget_of(suite, kept.cell.task, level, entry, spec),
                "samples": level.samples,
                "knowledge": knowledge,
            }
        )
        for kept in zoo.releases
        for entry, spec in specs
        if entry.faces(kept.cell.defense.label, kept.cell.defense.name)
        for level in kept.cell.task.levels
        for knowledge in (("others", "own") if suite.own else ("others",))
    ]


def _settle(store: Store, key: str, run: Store | None) -> None:
    """Forget an artifact that is not that of its card, and take one that is lacking from a run that has it."""
    path = store.artifact_path(key)
    if path.exists() and not _sound(path, key):
        store.forget_artifact(key)
    if run and run.artifact_path(key).exists():
        store.artifact(key, lambda unfinished: _copy(run.artifact_path(key), unfinished))


def _copy(origin: Path, to: Path) -> None:
    shutil.copyfile(origin, to)


def _sound(path: Path, key: str) -> bool:
    """Return whether a file can be read and is what its card says, of this key; one without a card is not done yet."""
    try:
        read_weights(path)
        keys = read_card(path).get("keys", {"protect": key})
    except UserError:
        return False
    return bool(keys.get("protect", keys.get("pretrain")) == key)


def _check_code(cells: Iterable[Cell]) -> None:
    for cell in cells:
        if code_digest(registry.get("defense", cell.defense.name)) != cell.defense.code:
            raise UserError(
                f"{_name(cell)} is not there, and the code of {cell.defense.name!r} has changed since: it cannot be "
                "made again; give the folder of the run that has it"
            )


def _kept(session: Session, cell: Cell, origins: dict[str, Provenance]) -> Kept | None:
    path = session.store.artifact_path(cell.protect_key)
    weights, facts = read_weights(path)
    done = Protection.model_validate_json(facts)
    if done.status != "ok":
        session.console.print(f"{_name(cell)}: left out, its protection failed: {done.error}", highlight=False)
        return None
    if cell.task.name not in origins:
        origins[cell.task.name] = Bench(cell, torch.device("cpu"), cache_folder()).provenance()
    origin = origins[cell.task.name]
    card = read_card(path) or write_release(path, weights, card_of(cell, weights, done, origin), facts=facts)
    _card_the_clean(session.store, cell, origin)
    return Kept(cell=cell, sha256=card["sha256"], protection=done, provenance=origin)


def _card_the_clean(store: Store, cell: Cell, origin: Provenance) -> None:
    path = store.artifact_path(cell.pretrain_key)
    if path.exists() and not read_card(path):
        weights, facts = read_weights(path)
        card = card_of(cell, weights, Protection.model_validate_json(facts), origin)
        bare = {"defense": "clean model", "recipe": {}, "keys": {"pretrain": cell.pretrain_key}}
        write_release(path, weights, card | bare, facts=facts)


def _name(cell: Cell) -> str:
    return f"{cell.defense.label}, seed {cell.seed}, {cell.task.name}"
