"""Budgets: what a run may take, in units of T90, or in passes as papers have it."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, floor, log
from typing import Any

from pydantic import (
    Field,
)

from ntbench.types.trajectory import Trajectory
from ntbench.types.words import (
    Recipe,
    Selection,
)


class Budget(Recipe):
    """What single runs may take in optimizer steps: up to `horizon` times T90, and each smaller budget down to T90 / 8.

    Budgets lie a factor of `ratio` apart; each is one number of the run's trajectory.
    """

    t90: float = Field(gt=0)
    horizon: float = Field(default=8.0, gt=0)
    ratio: float = Field(default=2.0, gt=1, le=2)

    @property
    def unit(self) -> float:
        """Return T90, the steps that budgets are told in."""
        return self.t90

    @property
    def said(self) -> str:
        """Return the largest budget in words."""
        return f"{self.horizon:g} T90 of {self.t90:g} steps"

    @property
    def steps(self) -> int:
        """Return the largest budget in steps."""
        return max(1, round(self.horizon * self.t90))

    @property
    def ends(self) -> tuple[int, ...]:
        """Return every budget in steps, rising."""
        return _ends(self.t90, self.horizon, self.ratio)


@lru_cache(maxsize=1000)
def _ends(t90: float, horizon: float, ratio: float) -> tuple[int, ...]:
    count = floor(log(8 * horizon) / log(ratio) + 1e-9) if horizon > 1 / 8 else 0
    return tuple(sorted({max(1, round(horizon * t90 / ratio**k)) for k in range(count + 1)}))


class Epochs(Recipe):
    """What a run of a paper's protocol may take: `epochs` passes over the attacker's samples, of `each` steps a pass.

    With `patience` a run ends after so many passes in which the score that `select` goes by has not risen.
    """

    epochs: int = Field(ge=1)
    each: int = Field(ge=1)
    select: Selection = "last"
    patience: int = Field(default=0, ge=0)

    @classmethod
    def of(cls, samples: int, batch_size: int, **rules: Any) -> Epochs:
        """Return the passes over so many samples; the last batch of a pass counts as a whole one."""
        return cls(each=ceil(samples / batch_size), **rules)

    @property
    def unit(self) -> float:
        """Return the steps of a pass, which budgets are told in."""
        return float(self.each)

    @property
    def said(self) -> str:
        """Return the largest budget in words."""
        return f"{self.epochs} passes of {self.each} steps"

    @property
    def steps(self) -> int:
        """Return the largest budget in steps."""
        return self.epochs * self.each

    @property
    def ends(self) -> tuple[int, ...]:
        """Return the steps at which a run is scored, rising: every pass where one is chosen, else the last."""
        first = self.epochs if self.select == "last" else 1
        return tuple(self.each * k for k in range(first, self.epochs + 1))

    def chosen(self, run: Trajectory) -> int | None:
        """Return the place in a trajectory of what is reported, the first of equals; None where it has no scores."""
        if not run.step:
            return None
        scores = {"last": run.step, "best val": run.val, "best test": run.test}[self.select]
        return scores.index(max(scores))

    def over(self, run: Trajectory) -> bool:
        """Return whether a run that has come so far has been patient for long enough."""
        best = self.chosen(run)
        return bool(self.patience) and best is not None and len(run.step) - 1 - best >= self.patience
