"""What a run measured on its way, and how it is packed."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    model_validator,
)

from ntbench.types.words import (
    Recipe,
)


class Trajectory(Recipe):
    """What single runs of rising budgets took and reached, as columns of equal length; seconds exclude scoring.

    `step` is the budget. `val` and `test` are scores; `correct` says of every test image what it adds to the score, for
    classification whether it was right, packed by `pack_scores`; `own` is the score on the samples that an attacker put
    aside, where it chooses by them.
    """

    step: tuple[int, ...] = ()
    samples: tuple[int, ...] = ()
    flops: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()
    val: tuple[float, ...] = ()
    test: tuple[float, ...] = ()
    correct: tuple[str, ...] = ()
    own: tuple[float | None, ...] = ()

    @model_validator(mode="after")
    def _rectangular(self) -> Trajectory:
        if len({len(column) for _, column in self}) > 1:
            raise ValueError("the columns of a trajectory differ in length")
        return self


def pack_bits(right: NDArray[np.bool_]) -> str:
    """Return booleans [n] as base64 of their bits, eight a byte."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpack_bits(text: str, count: int) -> NDArray[np.bool_]:
    """Return the first `count` of the booleans that `pack_bits` packed."""
    held = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    return np.unpackbits(held, count=count).astype(bool)


def pack_scores(each: NDArray[Any]) -> str:
    """Return what each of n images adds to a score: booleans as `pack_bits`, others as base64 of two bytes each.

    A colon, which base64 does not have, tells the second from the first.
    """
    if each.dtype == np.bool_:
        return pack_bits(each)
    return ":" + base64.b64encode(each.astype("<f2").tobytes()).decode()


def unpack_scores(text: str, count: int) -> NDArray[np.float64]:
    """Return the first `count` of the numbers that `pack_scores` packed."""
    if not text.startswith(":"):
        return unpack_bits(text, count).astype(np.float64)
    return np.frombuffer(base64.b64decode(text[1:]), dtype="<f2", count=count).astype(np.float64)
