"""Overheads of one task's rows: what reaching a share of scratch's accuracy costs, at the largest sample ratio."""

from __future__ import annotations

import numpy as np

from ntbench.measure.curves import COSTS, PAPER, Curves, Selection
from ntbench.measure.metrics import Array, Overhead, cost_to_reach, overhead

QUANTILES = (50, 80, 90, 95)
PAPER_QUANTILE = 90
UNKNOWN = Overhead(np.nan, False, np.nan, np.nan)


def worst_overheads(curves: Curves, row: int, rule: Selection) -> dict[tuple[str, int], Overhead]:
    """Return by (cost, q) the cheapest attack's cost over scratch's cheapest, to q percent of tuned scratch's accuracy.

    Each side's attack has the lowest median over seeds (then restricted mean, then share of censored seeds) on the
    curves of the validation data, or of the test data for the rule `oracle`; the costs reported are those of the test
    curves. All are NaN where either side has no attack with every seed.
    """
    scratch = curves.scratch()
    found = {(cost, q): UNKNOWN for cost in COSTS for q in QUANTILES}
    if scratch is None or not (curves.eligible(row)[:, -1].any() and curves.eligible(scratch)[:, -1].any()):
        return found
    best = curves.attacks.index(curves.worst(scratch, rule)[0][-1])
    path = curves.test_path if rule == "oracle" else curves.val_path
    tuned = [float(array[rule][scratch, best, -1].mean()) for array in (curves.scores, curves.outcomes)]
    for cost, q in found:
        feasible, goal = (q / 100 * accuracy for accuracy in tuned)
        ours, theirs = (_cheapest(curves, i, curves.cost[cost], path, feasible) for i in (row, scratch))
        found[cost, q] = _compared(curves, cost, goal, (row, ours), (scratch, theirs))
    return found


def paper_overhead(curves: Curves, row: int | None, attack: str) -> Overhead:
    """Return the overhead in steps to 90 percent of what scratch reaches under the same attack; NaN where one lacks."""
    scratch = curves.scratch()
    if row is None or scratch is None or attack not in curves.attacks:
        return UNKNOWN
    a = curves.attacks.index(attack)
    if not (curves.eligible(row)[a, -1] and curves.eligible(scratch)[a, -1]):
        return UNKNOWN
    goal = PAPER_QUANTILE / 100 * float(curves.outcomes[PAPER][scratch, a, -1].mean())
    return _compared(curves, "steps", goal, (row, a), (scratch, a))


def _cheapest(curves: Curves, row: int, cost: Array, path: Array, goal: float) -> int:
    reached = cost_to_reach(cost[row], path[row], goal)
    censored = np.isinf(reached)
    restricted = np.where(censored, cost[row, :, :, -1], reached).mean(axis=1)
    order = np.lexsort((censored.mean(axis=1), restricted, np.median(reached, axis=1)))
    return next(int(a) for a in order if curves.eligible(row)[a, -1])


def _compared(curves: Curves, cost: str, goal: float, ours: tuple[int, int], theirs: tuple[int, int]) -> Overhead:
    spent = curves.cost[cost]
    positive = spent[theirs][spent[theirs] > 0]
    if not positive.size:
        return UNKNOWN
    floor = float(positive.min())
    mine, base = (cost_to_reach(spent[run], curves.test_path[run], goal) for run in (ours, theirs))
    # Scratch against itself is 1, also where it needs no step.
    mine = np.maximum(mine, floor) if ours == theirs else mine
    return overhead(mine, spent[ours][:, -1], base, floor)
