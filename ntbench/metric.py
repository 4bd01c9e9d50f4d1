"""A metric of one's own: a number for every row of a board, from what its run has stored; it needs no torch.

A metric works on copies of stored numbers where a report is made, so that it changes no result, rank or verdict.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ntbench.errors import first_line
from ntbench.types import Mask, Track

Better = Literal["higher", "lower"]
Array = NDArray[np.float64]
LONGEST = 300
"""Characters of an error that are told."""


@dataclass(frozen=True, eq=False)
class Row:
    """What a run has stored of one row of its board, as arrays that cannot be written to.

    Scores are fractions on test data. They are at `n` counts of target samples, rising, and at those `s` seeds at which
    attacker, release and baseline have a score at every count. `attacker` is the rational one, `release` starts from
    the release alone, `baseline` without it: what each has chosen at the horizon, as the board takes it. `unprotected`
    is the rational attacker of the release without protection. `scores` are those of each of `a` attacks on the
    release at each of `e` rising budgets in optimizer steps. What nobody has measured is NaN.
    """

    task: str
    track: Track
    defense: str
    mask: Mask
    counts: NDArray[np.int64]
    """Target samples [n]."""
    seeds: NDArray[np.int64]
    """Seeds [s]."""
    attacker: Array
    """Scores [n, s]."""
    release: Array
    """Scores [n, s]."""
    baseline: Array
    """Scores [n, s]."""
    unprotected: Array
    """Scores [n, s]."""
    attacks: tuple[str, ...]
    """Labels [a]."""
    budgets: Array
    """Optimizer steps [n, e], the horizon last."""
    scores: Array
    """Scores [a, n, s, e]."""
    source_before: Array
    """Accuracy [s] of the clean model on the source."""
    source_after: Array
    """Accuracy [s] of the release on the source."""
    zero_shot: Array
    """Accuracy [s] of the release on the target, before any attack."""
    sparsity: Array
    """Share [s] of released weights that is zero."""
    protect_steps: Array
    """Optimizer steps [s] of protecting."""
    protect_seconds: Array
    """Seconds [s] of protecting."""
    protect_flops: Array
    """Floating-point operations [s] of protecting."""

    def __post_init__(self) -> None:
        """Copy the arrays and close them, since several metrics get one row."""
        for field in fields(self):
            if isinstance(held := getattr(self, field.name), np.ndarray):
                closed = held.copy()
                closed.flags.writeable = False
                object.__setattr__(self, field.name, closed)


class Answer(NamedTuple):
    """What a metric gives for a row: a number, one a seed, or None where it does not apply; or what went wrong."""

    found: Any
    error: str = ""


class Metric:
    """A column of one's own: derive, set `name` and `better`, return numbers from `measure`, decorate with `register`.

    The docstring's first line explains the column.
    """

    kind: ClassVar[str] = "metric"
    name: ClassVar[str]
    version: ClassVar[int] = 1
    better: ClassVar[Better]
    """Whether higher or lower numbers are better for whoever releases the model."""

    def measure(self, row: Row) -> ArrayLike | None:
        """Return one number a seed [s], or a single number; None where the metric does not apply to the row."""
        raise NotImplementedError(f"{type(self).__name__}.measure")

    @classmethod
    def each(cls, rows: Sequence[Row]) -> Iterator[Answer]:
        """Yield what the metric gives for every row; an error is told, and the next row is asked for."""
        for row in rows:
            yield answer(cls, row)

    @classmethod
    def meaning(cls) -> str:
        """Return the metric in a line."""
        said = inspect.cleandoc(cls.__doc__ or cls.name).partition("\n")[0]
        return f"{said} {cls.better.capitalize()} is better."


def answer(metric: type[Metric], row: Row) -> Answer:
    """Return what a metric gives for a row as plain numbers, or the first line of its error."""
    try:
        found = metric().measure(row)
        return Answer(None if found is None else plain(found))
    except (Exception, SystemExit) as error:
        return Answer(None, f"{type(error).__name__}: {first_line(str(error))}"[:LONGEST])


def plain(found: Any) -> Any:
    """Return numbers as a float, or as lists of them.

    Raises TypeError on anything else.
    """
    numbers = np.asarray(found)
    if numbers.dtype.kind not in "biuf":
        raise TypeError(f"gives a {type(found).__name__} of {numbers.dtype}; return a number, or one a seed")
    return numbers.astype(np.float64).tolist()
