"""From results to a published file: what anybody needs to work out every number of a board again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from math import isnan
from typing import TypeVar

from ntbench.errors import UserError
from ntbench.suite import Suite
from ntbench.types import Protection, Result, digest

from .needed import Run
from .packing import NUMBERS, packed, packed_each, shares_of
from .rebuilt import keys_of, results_of, sum_of
from .schema import Published, PublishedAttack, PublishedCell, Score

TEXT = 300
"""The most characters of a reason that are published."""
T = TypeVar("T")


def published(results: Sequence[Result], suite: Suite, needed: Collection[Run]) -> tuple[Published, list[Result]]:
    """Return the file of one defense on one task, without rows, and the results that stand in it.

    Only needed runs keep what each image adds. Raises UserError where results of different recipes stand together.
    """
    results = sorted(results, key=lambda r: r.cell.key)
    cells = [r.cell for r in results]
    attacks = _attacks(results, suite)
    scored = [r for r in results if r.trajectory.step]
    texts = ["", *sorted({text for r in results for text in (_line(r.error), _line(r.choice)) if text})]
    task = next((task for task in suite.tasks if task.name == cells[0].task.name), cells[0].task)
    images, originals = _one({(r.images, r.originals) for r in scored} or {(0, 0)}, "images")
    origins = [r.provenance for r in results if r.provenance]
    file = Published(
        protocol=suite.protocol,
        task=task,
        arch=suite.arch,
        pretrain=suite.pretrain,
        horizon=suite.horizon,
        scored=suite.scored,
        source_share=suite.source_share,
        precision=suite.precision,
        scoring=suite.scoring,
        objective=suite.objective.on(task.domains),
        seeds=suite.seeds,
        defense=_one((cell.defense for cell in cells), "defense"),
        attacks=tuple(attacks),
        images=images,
        originals=originals,
        source_images=max(r.source_images for r in results),
        val_of=shares_of(v for r in scored for v in r.trajectory.val if not isnan(v)),
        test_of=shares_of((v for r in scored for v in r.trajectory.test), images),
        data={name: value for origin in origins for name, value in sorted(origin.data.items())},
        versions=_joined(origin.versions for origin in origins),
        device=", ".join(sorted({origin.place for origin in origins})),
        protections=_protections(results),
        texts=tuple(texts),
        cells=(),
        columns=packed([]),
        correct="",
        keys="",
    )
    return _filled(file, results, needed)


def _filled(file: Published, results: Sequence[Result], needed: Collection[Run]) -> tuple[Published, list[Result]]:
    texts = {text: k for k, text in enumerate(file.texts)}
    order = {(attack.spec.label, attack.spec.mask): k for k, attack in enumerate(file.attacks)}
    cells, columns, kept = [], [], []
    ordered = sorted(results, key=lambda r: (order[r.cell.attack.label, r.cell.mask], *r.cell.coordinates[4:]))
    for result in ordered:
        run = result.trajectory
        ends = result.cell.budget.ends
        known = [bool(b) and (result.cell.coordinates, s) in needed for s, b in zip(run.step, run.correct, strict=True)]
        cell = PublishedCell(
            attack=order[result.cell.attack.label, result.cell.mask],
            knowledge=result.cell.knowledge,
            samples=result.cell.samples,
            seed=result.cell.seed,
            status=result.status,
            error=texts[_line(result.error)],
            choice=texts[_line(result.choice)],
            paid=result.paid,
            val=_spread(run.step, run.val, ends, file.val_of),
            test=_spread(run.step, run.test, ends, file.test_of),
            bits=sum(2 ** ends.index(s) for s, there in zip(run.step, known, strict=True) if there),
            images=digest(run.correct)[:8] if any(run.correct) else "",
            sum="",
        )
        cells.append(cell)
        columns.append([run.samples, run.flops, [float(f"{s:.4g}") for s in run.seconds], run.own])
        kept += [bits for bits, there in zip(run.correct, known, strict=True) if there]
    numbers = any(bits.startswith(NUMBERS) for result in results for bits in result.trajectory.correct)
    each = packed_each(kept, file.images, numbers)
    held = {"cells": tuple(cells), "columns": packed(columns), "correct": each, "frechets": _frechets(ordered)}
    file, found = _sealed(file.model_copy(update=held))
    if file.keys != keys_of(ordered):
        raise UserError(
            f"{file.place}: the results have another recipe than {file.protocol}; publish each from its folder"
        )
    return file, found


def _frechets(results: Sequence[Result]) -> tuple[float | None, ...]:
    found = tuple(result.frechet for result in results)
    return found if any(far is not None for far in found) else ()


def _sealed(file: Published) -> tuple[Published, list[Result]]:
    """Return the file with the hashes of its cells and of their keys, and the results that stand in it."""
    found = results_of(file)
    cells = (cell._replace(sum=sum_of(cell, r)) for cell, r in zip(file.cells, found, strict=True))
    return file.model_copy(update={"cells": tuple(cells), "keys": keys_of(found)}), found


def _spread(steps: Sequence[int], scores: Sequence[float], ends: Sequence[int], of: int) -> tuple[Score, ...]:
    held: dict[int, Score] = {s: round(v * of) if of else v for s, v in zip(steps, scores, strict=True) if not isnan(v)}
    return tuple(held.get(end) for end in ends)


def _attacks(results: Sequence[Result], suite: Suite) -> list[PublishedAttack]:
    planned = [(label, mask) for _, label, mask in suite.planned]
    specs: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        specs.setdefault((result.cell.attack.label, result.cell.mask), []).append(result)
    order = [*planned, *sorted(set(specs) - set(planned))]
    return [_attack(specs[place]) for place in order if place in specs]


def _attack(results: Sequence[Result]) -> PublishedAttack:
    spec = _one((r.cell.attack for r in results), f"attack {results[0].cell.attack.label!r}")
    # A run whose process died does not know its track.
    told = next((r for r in results if r.provenance), results[0])
    return PublishedAttack(spec=spec, track=told.track)


def _protections(results: Sequence[Result]) -> dict[int, Protection]:
    found: dict[int, Protection] = {}
    for result in results:
        if result.protection is not None:
            # Pictures are too large for what no number rests on.
            plain = result.protection.model_copy(update={"error": _line(result.protection.error), "drawn": ""})
            found.setdefault(result.cell.seed, plain)
    return dict(sorted(found.items()))


def _line(text: str) -> str:
    # What follows the first line are folders of a machine.
    return text.strip().partition("\n")[0][:TEXT].encode("utf-8", "replace").decode()


def _one(values: Iterable[T], what: str) -> T:
    found = list(values)
    other = next((value for value in found if value != found[0]), None)
    if other is not None:
        raise UserError(f"{what}: {found[0]} and {other} are mixed; publish each from its own run folder")
    return found[0]


def _joined(versions: Iterable[dict[str, str]]) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for items in versions:
        for name, value in items.items():
            found.setdefault(name, set()).add(value)
    return {name: ", ".join(sorted(found[name])) for name in sorted(found)}
