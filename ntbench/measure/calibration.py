"""Where the baseline's learning ends: its plateau, and the steps that it takes to 90% of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ntbench.errors import UserError
from ntbench.measure.costs import reach
from ntbench.types import Result

SHARE = 0.9
SETTLED = 0.01
"""What a baseline that has converged gains at most over the second half of its budget."""
HORIZON = 8.0


@dataclass(frozen=True)
class Calibration:
    """The baseline at one sample count: `gain` is A(H) - A(H/2) at the largest budget H, of the best attack there."""

    t90: float
    plateau: float
    gain: float
    steps: int
    attack: str

    @property
    def settled(self) -> bool:
        """Return whether the budget was long enough to know."""
        return self.gain < SETTLED and self.steps >= HORIZON * self.t90 * (1 - 1e-9)


def calibration(results: Sequence[Result]) -> Calibration:
    """Return what the runs of the baseline at one sample count tell.

    At every budget the attack of the best mean over seeds on validation data counts, at that or a smaller budget; its
    accuracy is the mean over seeds on test data. Raises UserError where no attack went well on every seed.
    """
    labels, steps, val, test = _means(results)
    tried = np.where(np.isnan(val), -np.inf, val)
    best = [int(tried[:, : k + 1].argmax()) for k in range(len(steps))]
    reached = np.array([test[:, : k + 1].flat[place] for k, place in enumerate(best)])
    plateau, half = float(reached[-1]), int(np.abs(np.log(2 * steps / steps[-1])).argmin())
    winner = labels[best[-1] // len(steps)]
    return Calibration(
        t90=float(reach(reached[None, None], steps[None, None, None], [SHARE * plateau], steps[None])[0, 0, 0]),
        plateau=plateau,
        gain=plateau - float(reached[half]),
        steps=int(steps[-1]),
        attack=winner,
    )


def _means(
    results: Sequence[Result],
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return attacks, budgets, and mean validation and test accuracies [attacks, budgets] over seeds."""
    seeds = {result.cell.seed for result in results}
    runs: dict[str, list[Result]] = {}
    for result in results:
        if result.status == "ok":
            runs.setdefault(f"{result.cell.defense.label}, {result.cell.attack.label}", []).append(result)
    whole = {label: found for label, found in runs.items() if len(found) == len(seeds)}
    if not whole:
        raise UserError("the baseline cannot be measured: no attack from scratch went well on every seed")
    steps = sorted({step for found in whole.values() for result in found for step in result.trajectory.step})
    columns = [_columns(found, steps) for found in whole.values()]
    val, test = (np.array([column[i] for column in columns]) for i in (0, 1))
    return list(whole), np.array(steps, dtype=float), val, test


def _columns(found: Sequence[Result], steps: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    val, test = np.full((2, len(found), len(steps)), np.nan)
    for i, result in enumerate(found):
        run = result.trajectory
        places = [steps.index(step) for step in run.step]
        val[i, places], test[i, places] = run.val, run.test
    return val.mean(axis=0), test.mean(axis=0)
