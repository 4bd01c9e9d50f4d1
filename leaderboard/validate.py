"""Checking published boards: every file by itself, against its suite, and every number against the cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isclose
from pathlib import Path
from typing import Any

from ntbench.errors import UserError
from ntbench.suite import Suite, load_suite, suite_names
from ntbench.types import BASELINES, Protection, Result

from .history import carriers, days_that_differ, history_problems
from .packing import mean_of
from .publish import MAX_BYTES, planned
from .published import Board, row_place
from .rebuilt import keys_of, results_of, sum_of
from .schema import SUITE, Published, PublishedSuite, read

UNKEYED = ("max_drop", "axis", "paper", "default")
"""Settings of a suite on which rows rest, and no cell."""
TOLERANCE = 2e-6
"""Rows are rounded to six decimals; sums of the same numbers in another order differ by less."""
EDITED = "it was edited or damaged; publish again"
SETTINGS = ("horizon", "scored", "source_share", "precision", "scoring")
SUITE_FIELDS = ("protocol", "arch", "pretrain", *SETTINGS, "seeds")


def validate(folder: Path) -> list[str]:
    """Return every problem of the published boards in a results folder, none where they are sound."""
    if not folder.is_dir():
        return [f"{folder}: no such folder; give the leaderboard folder that holds `results`"]
    problems = [
        f"{path}: no published file has this place; remove it"
        for path in sorted(folder.rglob("*.json"))
        if len(path.relative_to(folder).parts) != 3 and path.relative_to(folder).parts[1:] != (SUITE,)
    ]
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        problems += _board(path)
    return problems


def _board(folder: Path) -> list[str]:
    problems: list[str] = []
    files: dict[Path, Published] = {}
    for path in sorted(folder.glob("*/*.json")):
        try:
            files[path] = read(path, Published)
        except UserError as error:
            problems += str(error).splitlines()
    try:
        suite = read(folder / SUITE, PublishedSuite)
    except (UserError, OSError) as error:
        return [*problems, *(str(error).splitlines() if isinstance(error, UserError) else [_no_suite(folder)])]
    problems += [f"{folder / SUITE}: {problem}" for problem in _suite_problems(folder, suite)]
    sound: dict[Path, Published] = {}
    for path, file in files.items():
        found = [f"{path}: {problem}" for problem in _file_problems(path, file, suite.suite)]
        problems += found
        if file.place == Path(*path.parts[-3:]) and _readable(file):
            sound[path] = file
    problems += _missing(folder, suite.suite, list(files.values()))
    problems += [f"{folder}: {problem}; {EDITED}" for problem in days_that_differ(list(files.values()))]
    return problems + _numbers(folder, suite.suite, sound)


def _no_suite(folder: Path) -> str:
    return f"{folder / SUITE}: missing; publish the board again"


def _suite_problems(folder: Path, file: PublishedSuite) -> Iterator[str]:
    if file.suite.name != folder.name:
        yield f"suite.name = {file.suite.name!r}: belongs into a folder of this name; move it"
    if not file.intact:
        yield f"checksum = {file.checksum!r}: does not fit the content; {EDITED}"
    if file.suite.name in suite_names() and (shipped := load_suite(file.suite.name)).version == file.suite.version:
        yield from _against_shipped(file.suite, shipped)


def _against_shipped(suite: Suite, shipped: Suite) -> Iterator[str]:
    """Yield where numbers rest on what no key of a cell covers, and a suite says it otherwise than ntbench's own."""
    for name in UNKEYED:
        held, known = getattr(suite, name), getattr(shipped, name)
        if held != known:
            yield f"suite.{name} = {held!r}: {shipped.protocol} has {known!r}; {EDITED}"
    frozen = {(task.name, at.samples): at for task in shipped.tasks for at in task.levels if at.t90 and at.plateau}
    for task in suite.tasks:
        for at in task.levels:
            if at != (given := frozen.get((task.name, at.samples), at)):
                yield f"suite.tasks.{task.name} = {at!r}: {shipped.protocol} has {given!r}; {EDITED}"


def _file_problems(path: Path, file: Published, suite: Suite) -> Iterator[str]:
    place, size = Path(*path.parts[-3:]), path.stat().st_size
    if place != file.place:
        yield f"path = {str(place)!r}: the content belongs at {str(file.place)!r}; move the file"
    if size > MAX_BYTES:
        yield f"size = {size} bytes: more than {MAX_BYTES}; publish a suite of fewer attacks or counts"
    if not file.intact:
        yield f"checksum = {file.checksum!r}: does not fit the content; {EDITED}"
    yield from _origin(file)
    yield from _against_suite(file, suite)
    yield from _protections(file)
    try:
        results = results_of(file)
    except UserError as error:
        yield str(error)
        return
    yield from _cells(file, results)
    yield from _marks(file, results)
    yield from _lacking(file, suite, results)


def _origin(file: Published) -> Iterator[str]:
    for name in ("data", "versions"):
        held: Mapping[str, str] = getattr(file, name)
        if not held or not all(held.values()):
            yield f"{name} = {dict(held)}: says not what the numbers come from; publish again"
    if "ntbench" not in file.versions:
        yield f"versions = {dict(file.versions)}: lacks `ntbench`; publish again"
    if not file.device:
        yield "device = '': says not where the numbers come from; publish again"


def _against_suite(file: Published, suite: Suite) -> Iterator[str]:
    for name in SUITE_FIELDS:
        if getattr(file, name) != getattr(suite, name):
            yield f"{name} = {getattr(file, name)!r}: the suite has {getattr(suite, name)!r}; publish again"
    if file.objective != (objective := suite.objective.on(file.task.domains)):
        yield f"objective = {file.objective!r}: the suite has {objective!r}; publish again"
    task = next((task for task in suite.tasks if task.name == file.task.name), None)
    if task != file.task:
        yield f"task = {file.task.name!r}: is not as the suite has it, with T90 and plateau; publish again"
    names = {row: entry.name for entry in suite.defenses for row in entry.rows}
    if names.get(file.defense.label) != file.defense.name:
        yield f"defense = {file.defense.label!r} ({file.defense.name}): is no row of the suite; publish again"


def _protections(file: Published) -> Iterator[str]:
    for seed, found in file.protections.items():
        for score, bits in (("source_before", "clean"), ("source_after", "kept")):
            yield from (f"protections.{seed}.{problem}" for problem in _share(file, found, score, bits))


def _share(file: Published, found: Protection, score: str, bits: str) -> Iterator[str]:
    held, value = getattr(found, bits), getattr(found, score)
    if value is not None and not 0 <= value <= 1:
        yield f"{score} = {value}: a fraction lies in [0, 1]; publish again"
    if not held or not file.source_images:
        return
    try:
        right, rounding = mean_of(held, file.source_images)
    except ValueError:
        yield f"{bits}: does not say what each of {file.source_images} images adds to the score; {EDITED}"
        return
    if value is None or not isclose(right, value, abs_tol=TOLERANCE + rounding):
        yield f"{score} = {value}: its images give {right:.6g}; {EDITED}"


def _cells(file: Published, results: Sequence[Result]) -> Iterator[str]:
    if file.keys != keys_of(results):
        yield f"keys = {file.keys!r}: the recipes of the cells have the keys {keys_of(results)!r}; {EDITED}"
    for k, (cell, result) in enumerate(zip(file.cells, results, strict=True)):
        if max(result.trajectory.val, default=0) > 1 or max(result.trajectory.test, default=0) > 1:
            yield f"cells.{k} ({_words(result)}): a score is above 1; {EDITED}"
        if cell.sum != sum_of(cell, result):
            yield f"cells.{k} ({_words(result)}): is not what was published of its recipe; {EDITED}"
        yield from (f"cells.{k}.test ({_words(result)}) = {problem}" for problem in _images(result))


def _marks(file: Published, results: Sequence[Result]) -> Iterator[str]:
    keys = {result.cell.key for result in results}
    for key in (key for mark in file.verified for key in mark.cells if key not in keys):
        yield f"verified = {key!r}: no cell of the file has this key; remove it, or verify again"


def _images(result: Result) -> Iterator[str]:
    run = result.trajectory
    for step, score, bits in zip(run.step, run.test, run.correct, strict=True):
        right, rounding = mean_of(bits, result.images) if bits else (score, 0.0)
        if not isclose(right, score, abs_tol=TOLERANCE + rounding):
            yield f"{score:.6g} at {step} steps: its images give {right:.6g}; {EDITED}"


def _words(result: Result) -> str:
    cell = result.cell
    return f"{cell.attack.label}, {cell.mask}, {cell.samples} samples, seed {cell.seed}, {cell.knowledge}"


def _lacking(file: Published, suite: Suite, results: Sequence[Result]) -> Iterator[str]:
    asked = [place for place in planned(suite, file.task) if place[1] == file.defense.label]
    held = [(cell.attack, cell.samples, cell.seed, cell.knowledge) for cell in file.cells]
    if len(set(held)) < len(held):
        yield f"cells = {len(held)}: a cell stands there twice; {EDITED}"
    there = {result.cell.coordinates: result for result in results}
    by_attack: dict[tuple[str, str], list[str]] = {}
    for place in asked:
        result = there.get(place)
        if result is None:
            by_attack.setdefault(place[2:4], []).append(f"{place[4]} samples, seed {place[5]}")
        elif result.status == "inapplicable" and not result.error:
            yield f"cells ({_words(result)}): does not apply, without a reason; publish again"
    for (attack, mask), places in by_attack.items():
        yield f"cells: {attack!r} ({mask}) is missing {len(places)} times, first at {places[0]}; run and publish it"
    if more := [place for place in there if place not in set(asked)]:
        yield f"cells: {more[0][2]!r} ({more[0][3]}) on {file.defense.label} is not in the suite; publish again"


def _missing(folder: Path, suite: Suite, files: Sequence[Published]) -> Iterator[str]:
    there = {(file.task.name, file.defense.label) for file in files}
    for task in suite.tasks:
        for entry in suite.defenses:
            for row in (row for row in entry.rows if (task.name, row) not in there):
                what = "its baseline" if entry.name in BASELINES else "a row"
                yield f"{folder / row / task.name}.json: missing, {what} of the suite; run and publish it"
        if not any(entry.name in BASELINES for entry in suite.defenses):
            yield f"{folder / SUITE}: {task.name} has no baseline; add `scratch` to the suite"


def _readable(file: Published) -> bool:
    try:
        return bool(results_of(file))
    except UserError:
        return False


def _numbers(folder: Path, suite: Suite, files: Mapping[Path, Published]) -> list[str]:
    board = Board(suite, {file.place: file for file in files.values()})
    try:
        rows = board.rows if files else {}
        found = carriers(board) if any(file.history for file in files.values()) else {}
    except (UserError, ValueError) as error:
        return [f"{folder}: the rows cannot be worked out: {error}"]
    problems = []
    for path, file in files.items():
        problems += [f"{path}: {problem}" for problem in _differing(file.rows, rows[file.place])]
        problems += [f"{path}: {problem}; {EDITED}" for problem in history_problems(file, found)]
    return problems


def _differing(held: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    ours, theirs = ({row_place(row): row for row in rows} for rows in (held, found))
    if list(map(row_place, held)) != list(map(row_place, found)):
        yield f"rows = {sorted(map(row_place, held))}: the cells give {sorted(theirs)}; publish again"
    for place in (place for place in theirs if place in ours):
        told, given = ours[place], theirs[place]
        for name in dict.fromkeys([*given, *told]):
            if not _same(told.get(name), given.get(name)):
                stated = f"rows.{'.'.join(place)}.{name} = {told.get(name)!r}"
                yield f"{stated}: the cells give {given.get(name)!r}; publish again"


def _same(held: Any, found: Any) -> bool:
    if type(held) not in (int, float) or type(found) not in (int, float):
        return type(held) is type(found) and bool(held == found)
    return isclose(held, found, rel_tol=1e-6, abs_tol=TOLERANCE)
