"""The strongest attack that a search finds: successive halving over what labels, source data and weights allow.

Paper: Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", in the
asynchronous form of Li et al. 2020 (ASHA). A trial draws a way to attack, an optimizer, a rate and views of the images
(Optuna's TPE sampler, after the KNOWN strong ones), runs for `rung` of the steps of one plain run, and goes on only if
its accuracy on the attacker's own validation data is among the best 1 / `reduction` of those seen there. The search
spends `runs` times the steps of one run in all; its best trial gets the last `longer` of them for one long run. After
every step the best model so far is yielded, which may be the released one.

Deviations: a trial that is stopped is not taken up again, and the best starts anew for its long run. What learns
without target labels is no part of the space; with `mask="keep"` only plain fine-tuning is, since the others let zeros
grow.
"""

import copy
from collections.abc import Generator, Iterator, Sequence
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
    attack: Attack | None = None

    def consider(self, attack: Attack, model: nn.Module, score: float, trial: optuna.Trial | None) -> None:
        """Take a copy of a model that does better than all before it; without a trial its attack ran before."""
        if score > self.score:
            self.model, self.score, self.attack = copy.deepcopy(model), score, attack
            self.choice = _told(trial) if trial else f"{self.choice}, longer".replace(", longer, longer", ", longer")


def _told(trial: optuna.Trial) -> str:
    way, *others = (f"{v:.2g}" if isinstance(v, float) else str(v) for v in trial.params.values())
    return f"{way}: {', '.join(others)}"


def _with_steps(ctx: Context, steps: int) -> Context:
    samples = ctx.budget.samples * steps // ctx.budget.steps
    return replace(ctx, budget=Budget(steps=steps, samples=samples, scored=(steps,)))


@register
class Auto(Attack):
    """Search for the attack that does best on validation data of the attacker's own."""

    name = "auto"
    paper = "https://arxiv.org/abs/1810.05934"
    access = Access(source=True, target="labelled", validation=True)
    quick = {"runs": 2}

    runs: int = Field(default=8, ge=1)
    longer: float = Field(default=0.5, ge=0, lt=1)
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
        assert ctx.target_val is not None
        fits = head(model).out_features == ctx.target_classes
        best = Best(copy.deepcopy(model), accuracy(model, ctx.target_val) if fits else -1.0)
        ways = [*KEEPING] if self.respects_mask else open_ways(model, ctx)
        fixed = {"mask": "keep"} if self.respects_mask else {}
        one = ctx.budget.steps // self.runs
        study, left = self._study(ctx, one, ways), ctx.budget.steps - round(self.longer * ctx.budget.steps)
        while left:
            trial = study.ask()
            candidate = propose(trial, ways, fixed)
            models = candidate.attack(copy.deepcopy(model), _with_steps(ctx, one))
            left -= yield from self._try(candidate, islice(models, left), ctx, best, one, trial)
            study.tell(trial, state=TrialState.PRUNED)  # its value is what it reported last
        rest = round(self.longer * ctx.budget.steps)
        if rest and best.attack:
            models = best.attack.attack(copy.deepcopy(model), _with_steps(ctx, rest))
            yield from self._try(best.attack, models, ctx, best, rest)
        return best.choice

    def _try(
        self,
        attack: Attack,
        models: Iterator[nn.Module],
        ctx: Context,
        best: Best,
        steps: int,
        trial: optuna.Trial | None = None,
    ) -> Generator[nn.Module, None, int]:
        """Run an attack until it is stopped, diverges or is done, and return how many steps it took, at least one."""
        assert ctx.target_val is not None
        step, rung = 0, self._rung(steps)
        with suppress(FloatingPointError):
            for step, adapted in enumerate(models, start=1):
                if step % rung == 0:
                    score = accuracy(adapted, ctx.target_val)
                    best.consider(attack, adapted, score, trial)
                    if trial:
                        trial.report(score, step)
                yield best.model
                if trial and step % rung == 0 and trial.should_prune():
                    return step
        if not step:
            yield best.model
        return max(1, step)

    def _rung(self, steps: int) -> int:
        return max(1, round(self.rung * steps))

    def _study(self, ctx: Context, steps: int, ways: Sequence[str]) -> optuna.Study:
        seed = int(torch.randint(2**31, (), generator=ctx.generator("search")))
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=2 * len(KNOWN)),
            pruner=optuna.pruners.SuccessiveHalvingPruner(self._rung(steps), self.reduction),
        )
        for params in (known for known in KNOWN if known["way"] in ways):
            study.enqueue_trial(params)
        return study
