"""The strongest attack that a search finds: successive halving over fine-tuning and the adaptive attacks.

Paper: Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", in the
asynchronous form of Li et al. 2020 (ASHA). A trial draws a way to attack, an optimizer, a rate and views of the images
(Optuna's TPE sampler, after the KNOWN strong ones), runs for `rung` of the steps of one plain run, and goes on only if
its accuracy on the attacker's own validation data is among the best 1 / `reduction` of those seen there. The search
spends `runs` times the steps of one run in all, yields the best model so far after every step, and ends with the best.

Deviations: a trial that is stopped is not taken up again. What needs source data, or learns without target labels, is
no part of the space; with `mask="keep"` only plain fine-tuning is, since the others let zeros grow.
"""

import copy
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

import optuna
import torch
from optuna.trial import TrialState
from torch import nn

from ntbench.method import Access, Attack, Budget, Context, Field, Mask, accuracy, head, register

from ._space import KEEPING, KNOWN, open_ways, propose


@dataclass
class Best:
    """The best model that a search has seen, which at first is the released one."""

    model: nn.Module
    score: float
    choice: str = "as released"

    def consider(self, model: nn.Module, score: float, trial: optuna.Trial) -> None:
        """Take a copy of a model that does better than all before it."""
        if score > self.score:
            way, *others = (f"{v:.2g}" if isinstance(v, float) else str(v) for v in trial.params.values())
            self.model, self.score, self.choice = copy.deepcopy(model), score, f"{way}: {', '.join(others)}"


@register
class Auto(Attack):
    """Search for the attack that does best on validation data of the attacker's own."""

    name = "auto"
    paper = "https://arxiv.org/abs/1810.05934"
    access = Access(target="labelled", validation=True)
    quick = {"runs": 2}

    runs: int = Field(default=6, ge=1)
    rung: float = Field(default=0.25, gt=0, le=1)
    reduction: int = Field(default=4, ge=2)
    mask: Mask = "dense"

    @property
    def respects_mask(self) -> bool:
        """Return whether the released zeros stay."""
        return self.mask == "keep"

    @property
    def times(self) -> int:
        """Return how many plain runs the search may spend."""
        return self.runs

    def attack(self, model: nn.Module, ctx: Context) -> Generator[nn.Module, None, str]:
        """Yield the best model so far after every step of every trial, and return what it was."""
        one = ctx.budget.steps // self.runs
        within = replace(ctx, budget=Budget(steps=one, samples=ctx.budget.samples // self.runs, scored=(one,)))
        ways = [*KEEPING] if self.respects_mask else open_ways(model, ctx)
        fixed = {"mask": "keep"} if self.respects_mask else {}
        assert ctx.target_val is not None
        fits = head(model).out_features == ctx.target_classes
        best = Best(copy.deepcopy(model), accuracy(model, ctx.target_val) if fits else -1.0)
        study, left = self._study(ctx, one), ctx.budget.steps
        while left:
            trial = study.ask()
            candidate = propose(trial, ways, fixed).attack(copy.deepcopy(model), within)
            left -= yield from self._try(trial, islice(candidate, left), within, best)
            study.tell(trial, state=TrialState.PRUNED)  # its value is what it reported last
        return best.choice

    def _try(
        self, trial: optuna.Trial, models: Iterator[nn.Module], ctx: Context, best: Best
    ) -> Generator[nn.Module, None, int]:
        """Run one trial until it is stopped, diverges or is done, and return how many steps it took, at least one."""
        assert ctx.target_val is not None
        step, rung = 0, self._rung(ctx.budget.steps)
        with suppress(FloatingPointError):
            for step, adapted in enumerate(models, start=1):
                if step % rung == 0:
                    score = accuracy(adapted, ctx.target_val)
                    best.consider(adapted, score, trial)
                    trial.report(score, step)
                yield best.model
                if step % rung == 0 and trial.should_prune():
                    return step
        if not step:
            yield best.model
        return max(1, step)

    def _rung(self, steps: int) -> int:
        return max(1, round(self.rung * steps))

    def _study(self, ctx: Context, steps: int) -> optuna.Study:
        seed = int(torch.randint(2**31, (), generator=ctx.generator("search")))
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=2 * len(KNOWN)),
            pruner=optuna.pruners.SuccessiveHalvingPruner(self._rung(steps), self.reduction),
        )
        for params in KNOWN:
            study.enqueue_trial(params)
        return study
