"""Ranks: places by leak, where worse than the baseline is no extra protection."""

from math import inf, nan
from types import SimpleNamespace
from typing import Any

from ntbench.measure.ranking import by_leak, ranks


class Row:
    """A usable row of three seeds with a leak."""

    ranked = usable = True
    judging = SimpleNamespace(seeds=(0, 1, 2))

    def __init__(self, leak: float) -> None:
        self.leak = SimpleNamespace(point=leak)


def test_an_attackers_mistake_is_no_better_place() -> None:
    rows: Any = [Row(leak) for leak in (0.3, -0.2, 0.0, 0.1)]
    found = ranks(rows)
    assert [found[row].rank for row in rows] == [4, 1, 1, 3]


def test_of_equals_the_surer_comes_first_and_the_unknown_last() -> None:
    rows = [(nan, nan), (0.1, 0.2), (0.0, nan), (-0.2, 0.5), (0.0, 0.3)]
    assert sorted(rows, key=lambda row: by_leak(*row))[:4] == [(0.0, 0.3), (-0.2, 0.5), rows[2], (0.1, 0.2)]
    assert by_leak(-0.2, nan) == (False, 0.0, inf) and by_leak(nan, 1.0)[0]
