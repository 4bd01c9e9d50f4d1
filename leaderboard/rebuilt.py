"""From a published file to results: its cells with their recipes, as a run would have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from math import isnan, nan
from typing import Any

from ntbench.errors import UserError
from ntbench.types import Budget, Cell, Provenance, Result, Trajectory, digest

from .packing import DAMAGED, NUMBERS, stand_in, unpacked, unpacked_each
from .schema import Published, PublishedCell, Score

COSTS = ("samples", "flops", "seconds", "own")
"""What `columns` holds of each cell, at the budgets that it has a score at."""


def sum_of(cell: PublishedCell, result: Result) -> str:
    """Return the hash of everything that is published of a cell, with its recipe."""
    run = result.trajectory
    kept = [bits for k, bits in enumerate(run.correct) if cell.bits >> result.cell.budget.ends.index(run.step[k]) & 1]
    values = [list(column) for name, column in run if name != "correct"]
    said = [result.status, result.error, result.choice, result.track, result.paid, cell.images]
    said += [] if result.frechet is None else [result.frechet]
    return digest([result.cell.key, said, [_plain(v) for v in values], kept])[:8]


def keys_of(results: Iterable[Result]) -> str:
    """Return the hash of the keys of all cells."""
    return digest([result.cell.key for result in results])


def results_of(file: Published) -> list[Result]:
    """Return the cells of a file as results.

    Runs of which no number needs the images have some of the same score. Raises UserError where parts do not fit.
    """
    try:
        columns = unpacked(file.columns)
        held = iter(unpacked_each(file.correct, sum(cell.bits.bit_count() for cell in file.cells), file.images))
        origin = Provenance(data=file.data, versions=file.versions, device=file.device)
        build = recipes(file)
        far = file.frechets or (None,) * len(file.cells)
        parts = zip(file.cells, columns, far, strict=True)
        return [_result(file, build(cell), cell, costs, there, held, origin) for cell, costs, there in parts]
    except (*DAMAGED, KeyError, IndexError, TypeError, StopIteration) as error:
        raise UserError(f"{file.place}: cells do not fit the file ({type(error).__name__}: {error})") from None


def recipes(file: Published) -> Callable[[PublishedCell], Cell]:
    """Return what gives the recipe of a cell of a file."""
    t90 = {level.samples: level.t90 for level in file.task.levels}

    @cache
    def budget(samples: int) -> Budget:
        return Budget(t90=t90[samples] or nan, horizon=file.horizon, ratio=file.scored)

    protections: dict[int, str] = {}

    def known(cell: Cell) -> str:
        if cell.seed not in protections:
            protections[cell.seed] = cell.protect_key
        return protections[cell.seed]

    def build(cell: PublishedCell) -> Cell:
        found = Cell(
            protocol=file.protocol,
            task=file.task,
            arch=file.arch,
            pretrain=file.pretrain,
            defense=file.defense,
            attack=file.attacks[cell.attack].spec,
            budget=budget(cell.samples),
            samples=cell.samples,
            seed=cell.seed,
            source_share=file.source_share,
            knowledge=cell.knowledge,
            precision=file.precision,
            scoring=file.scoring,
            objective=file.objective,
        )
        # Within a file the seed alone decides what is attacked, and hashing that takes most of a cell's time.
        found.__dict__["protect_key"] = known(found)
        return found

    return build


def _result(
    file: Published,
    cell: Cell,
    kept: PublishedCell,
    costs: Sequence[Sequence[Any]],
    far: float | None,
    bits: Iterator[str],
    origin: Provenance,
) -> Result:
    ends = cell.budget.ends
    if len(kept.val) != len(ends) or len(kept.test) != len(ends) or kept.bits >> len(ends):
        raise ValueError(f"{cell.samples} samples have {len(ends)} budgets")
    there = [k for k, score in enumerate(kept.test) if score is not None]
    test = [_score(kept.test[k], file.test_of) for k in there]
    right = [next(bits) if kept.bits >> k & 1 else _stand_in(file, kept, s) for k, s in zip(there, test, strict=True)]
    columns = dict(zip(COSTS, costs, strict=True))
    return Result(
        cell=cell,
        status=kept.status,
        error=file.texts[kept.error],
        choice=file.texts[kept.choice],
        track=file.attacks[kept.attack].track,
        images=file.images,
        originals=file.originals,
        source_images=file.source_images,
        paid=kept.paid,
        frechet=far,
        protection=None if kept.status == "inapplicable" else file.protections.get(kept.seed),
        trajectory=Trajectory(
            step=tuple(ends[k] for k in there),
            val=tuple(_score(kept.val[k], file.val_of) for k in there),
            test=tuple(test),
            correct=tuple(right),
            **columns,
        ),
        provenance=origin,
    )


def _stand_in(file: Published, cell: PublishedCell, score: float) -> str:
    return stand_in(score, file.images, file.correct.startswith(NUMBERS)) if cell.images else ""


def _score(value: Score, of: int) -> float:
    if value is None:
        return nan
    if isinstance(value, int) != bool(of):
        raise ValueError(f"the score {value} is no count of images" if of else f"the score {value} is no fraction")
    return value / of if of else float(value)


def _plain(values: Iterable[Any]) -> list[Any]:
    return [None if isinstance(v, float) and isnan(v) else v for v in values]
