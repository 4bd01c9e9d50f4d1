"""A row's history: what it said before, until when, and which attack that came since carries its worst cases."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import date
from itertools import pairwise
from typing import Any

from ntbench.errors import UserError
from ntbench.measure.carriers import cases
from ntbench.suite import Suite
from ntbench.types import digest, with_mask

from .published import Board
from .schema import Past, Published, PublishedAttack, Said

DECIMALS = 4
Place = tuple[str, str, str, str]
"""Task, defense, track and mask."""
Carriers = dict[Place, list[tuple[str, str]]]
"""The label and mask of the attacks that carry the worst cases of a row."""


def base(held: Board, suite: Suite) -> Board:
    """Return the board that a suite's rows join: the held one, or of a later version an empty one.

    Raises UserError where the suite is older, or a later version lacks rows: two versions never stand together.
    """
    if suite.version == held.suite.version:
        return held
    if suite.version < held.suite.version:
        raise UserError(f"{suite.protocol} is older than the published {held.suite.protocol}; run that suite")
    planned = {(task.name, row) for task in suite.tasks for entry in suite.defenses for row in entry.rows}
    lost = [file for file in held.files.values() if (file.task.name, file.defense.label) not in planned]
    if lost:
        raise UserError(
            f"{suite.protocol} lacks {len(lost)} rows of the published {held.suite.protocol}, first {lost[0].place}; "
            "rows of two versions never stand together: run all of them and publish the whole board, or remove the "
            "files of rows that leave it"
        )
    return Board(suite, {})


def remembered(board: Board, held: Board, day: date) -> Board:
    """Return a board whose files remember what those of the held one said, where they say something else now.

    What was said for less than a day is not kept.
    """
    files = {}
    for place, file in board.files.items():
        before = held.files.get(place)
        history = before.history if before else ()
        new = not history or history[-1].until < day.isoformat()
        if before and new and saying(before) != saying(file):
            history = (*history, _past(before, day))
        files[place] = file.model_copy(update={"history": history})
    if not any(file.history for file in files.values()):
        return board
    found = carriers(board)
    return board.saying({place: _since(file, found) for place, file in files.items()})


def carriers(board: Board) -> Carriers:
    """Return which attacks carry the worst cases of every row that is no baseline."""
    standings = [s for s in board.study.standings if not s.release.baseline]
    return {(s.curves.task.name, s.release.label, s.field.track, s.row.mask): list(cases(s).takers) for s in standings}


def saying(file: Published | Past) -> tuple[Any, ...]:
    """Return what a file says, or said, as its history has it."""
    attacks = file.attacks if isinstance(file, Past) else tuple(map(_identity, file.attacks))
    return file.protocol, attacks, tuple(row.model_copy(update={"since": ()}) for row in said(file))


def editions(file: Published) -> list[Past | Published]:
    """Return what a file said, the oldest first, and the file itself."""
    return [*file.history, file]


def said(file: Published | Past) -> tuple[Said, ...]:
    """Return the rows of a file as a history has them."""
    return file.rows if isinstance(file, Past) else _rows(file)


def history_problems(file: Published, found: Carriers) -> Iterator[str]:
    """Yield what cannot be in a history: its order, steps without a change, and a last step that the cells deny."""
    name, _, version = file.protocol.rpartition("-")
    past = [(past.protocol.rpartition("-")[0], int(past.protocol.rpartition("-")[2])) for past in file.history]
    versions = [*(number for _, number in past), int(version)]
    days = [past.until for past in file.history]
    if any(other != name for other, _ in past) or versions != sorted(versions):
        yield f"history.protocol = {[past.protocol for past in file.history]}: does not lead to {file.protocol}"
    if any(later <= earlier for earlier, later in pairwise(days)):
        yield f"history.until = {days}: days do not rise"
    for k, (one, other) in enumerate(pairwise(editions(file))):
        if saying(one) == saying(other):
            yield f"history.{k} = {one.protocol}: says nothing else than what came next"
    if file.history and _since(file, found).history != file.history:
        held, given = ({row.since for row in f.history[-1].rows} for f in (file, _since(file, found)))
        yield f"history.{len(days) - 1}.rows.since = {sorted(held)}: the cells give {sorted(given)}"


def days_that_differ(files: Sequence[Published]) -> Iterator[str]:
    """Yield the versions of a board that ended on different days for different rows: a version ends for all at once."""
    ends: dict[str, dict[str, Published]] = {}
    for file in files:
        last = {past.protocol: past.until for past in file.history if past.protocol != file.protocol}
        for protocol, until in last.items():
            ends.setdefault(protocol, {}).setdefault(until, file)
    for protocol, found in ends.items():
        if len(found) > 1:
            places = ", ".join(f"{day} in {file.place}" for day, file in sorted(found.items()))
            yield f"history.until of {protocol} differs between rows: {places}"


def _past(file: Published, day: date) -> Past:
    protocol, attacks, rows = saying(file)
    return Past(until=day.isoformat(), protocol=protocol, checksum=file.checksum, attacks=attacks, rows=rows)


def _rows(file: Published) -> tuple[Said, ...]:
    plain = ("track", "mask", "interval", "attack")
    return tuple(
        Said.model_validate(
            {name: row[name] or "" for name in (*plain, "verdict")}
            | {name: _short(row[name]) for name in ("leak", "leak_low", "leak_high")}
        )
        for row in file.rows
    )


def _short(value: Any) -> Any:
    return round(value, DECIMALS) if isinstance(value, float) else value


def _identity(attack: PublishedAttack) -> str:
    # What an attack is, whatever it is called; better code of the same attack is no new one.
    return digest([attack.spec.name, attack.spec.params])[:8]


def _since(file: Published, found: Carriers) -> Published:
    """Return a file whose last step says which attacks that are new since then carry worst cases now."""
    if not file.history:
        return file
    *before, last = file.history
    new = {(a.spec.label, a.spec.mask) for a in file.attacks if _identity(a) not in last.attacks}
    rows = tuple(row.model_copy(update={"since": _names(file, row, found, new)}) for row in last.rows)
    return file.model_copy(update={"history": (*before, last.model_copy(update={"rows": rows}))})


def _names(file: Published, row: Said, found: Carriers, new: Collection[tuple[str, str]]) -> tuple[str, ...]:
    taken = found.get((file.task.name, file.defense.label, row.track, row.mask), [])
    return tuple(with_mask(*attack) for attack in taken if attack in new)
