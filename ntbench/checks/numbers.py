"""What a metric of somebody's own keeps: it explains itself, and gives the same finite numbers twice."""

from __future__ import annotations

import numpy as np

from ntbench.measure.registered import interval, known
from ntbench.metric import Metric, Row


def check_gives_the_same_twice(cls: type[Metric]) -> str:
    """A metric has a docstring and columns of its own, and gives a row the same finite numbers twice; say which."""
    if not cls.__doc__:
        raise AssertionError("has no docstring; say in its first line what the number means")
    known()
    row = example_row()
    first, second = cls.each([row, row])
    if error := first.error or second.error:
        raise AssertionError(f"fails on a row: {error}")
    try:
        found = interval(first.found, len(row.seeds))
    except (TypeError, ValueError) as wrong:
        raise AssertionError(str(wrong)) from None
    if first != second:
        raise AssertionError("gives other numbers the second time; take random numbers from a seed of its own")
    return "does not apply to a made-up row" if first.found is None else f"gives {found.point:.3g} for a made-up row"


def example_row() -> Row:
    """Return a made-up row of two sample counts, five seeds, two attacks and three budgets, whose numbers all exist."""
    seeds = np.arange(5)
    release = np.array([[0.5], [0.75]]) + seeds / 100
    baseline = np.array([[0.375], [0.75]]) + seeds / 200
    runs = [release - 0.125, release]
    return Row(
        task="source-target",
        track="target",
        defense="example",
        mask="dense",
        counts=np.array([10, 100]),
        seeds=seeds,
        attacker=np.maximum(release, baseline),
        release=release,
        baseline=baseline,
        unprotected=release + 0.125,
        attacks=("weak", "strong"),
        budgets=np.array([[10.0, 20.0, 40.0], [20.0, 40.0, 80.0]]),
        scores=np.stack(runs)[..., None] * np.array([0.5, 0.75, 1.0]),
        source_before=np.full(5, 0.9375),
        source_after=np.full(5, 0.9375) - seeds / 1000,
        zero_shot=np.full(5, 0.125),
        sparsity=np.full(5, 0.5),
        protect_steps=np.full(5, 200.0),
        protect_seconds=np.full(5, 4.0),
        protect_flops=np.full(5, 1e9),
    )
