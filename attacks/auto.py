"""The attack that a search finds to be the strongest: successive halving by samples of the attacker's own.

Paper: Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization". A trial
draws a way to attack, an optimizer, a rate and what belongs to the way. The first trials are the KNOWN strong ones, as
many more are drawn at random until `startup` are done, all others by Optuna's TPE sampler. Every trial runs for the
first of `SHARES` of the budget, the best of them anew for the second share, the best of these for all of it. How good a
trial is tells a stratified fifth of the attacker's samples, which it does not train on: by score, and by the loss
between equals. The winner trains on all samples for the whole budget; with the search that is at most
`runs` times the budget in steps, all of which are charged.

Deviations: one of four trials goes on, not half of them, and starts anew. Where the fifth has under two samples a
class (or channel, for a denoiser), nothing can be chosen by it, and the first of the KNOWN is the attack. What needs
source data or no labels is no part of the space, nor is what has no meaning for the objective; with `mask="keep"` only
plain fine-tuning is, since the others let zeros grow.
"""

import copy
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

import optuna
import torch
from torch import nn

from ntbench.method import Access, Attack, Context, Field, Fit, Mask, Split, correct, register

from ._space import KEEPING, WAYS, deepest_redraw, known_strong, open_ways, propose
from ._tuning import Tuning

HELD_OUT = 0.2
PER_CLASS = 2
SHARES = (1 / 16, 1 / 4, 1.0)
"""The shares of the budget that trials run for."""
REDUCTION = 4
"""One of so many trials goes on."""
LOST = -2.0
"""How good a trial is that diverges."""


@register
class Auto(Attack):
    """Search for the attack that does best on samples put aside, and run it."""

    name = "auto"
    paper = "https://arxiv.org/abs/1502.07943"
    objectives = ("classification", "denoising")
    access: ClassVar[Access] = Access()
    quick = {"runs": 3}

    runs: int = Field(default=8, ge=2)
    startup: int = Field(default=12, ge=1)
    mask: Mask = "dense"

    @property
    def respects_mask(self) -> bool:
        """Return whether the released zeros stay."""
        return self.mask == "keep"

    def fit_of(self, model: nn.Module, ctx: Context) -> Fit:
        """Search, and return the training of the winner, which tells what it is."""
        assert ctx.target is not None
        fixed = {"mask": "keep"} if self.respects_mask else {}
        held, rest = divided(ctx.target, ctx.generator("held out"))
        if len(held) < PER_CLASS * ctx.target_classes:
            first = known_strong(ctx)[0]
            winner = propose(optuna.trial.FixedTrial(first), [*WAYS], 1, fixed)
            told = f"too few to choose by: {in_words(first)}"
        else:
            _, winner, told = self._search(model, replace(ctx, target=rest), held, fixed)
        fit = winner.fit_of(model, ctx)
        assert fit is not None
        return replace(fit, told=told)

    def _search(
        self, model: nn.Module, ctx: Context, held: Split, fixed: Mapping[str, Any]
    ) -> tuple[float, Tuning, str]:
        """Return how good the best trial is, the attack that it stands for, and that in words."""
        counts = affordable(self.runs - 1)
        trials = self._explore(model, ctx, held, fixed, counts[0])
        for share, count in zip(SHARES[1:], counts[1:], strict=False):
            best = sorted(trials, key=lambda trial: -trial[0])[:count]
            trials = [(merit(attack, model, ctx, held, share), attack, told) for _, attack, told in best]
        return max(trials, key=lambda trial: trial[0])

    def _explore(
        self, model: nn.Module, ctx: Context, held: Split, fixed: Mapping[str, Any], count: int
    ) -> list[tuple[float, Tuning, str]]:
        """Return what so many trials are worth after the first share of the budget."""
        ways = [*KEEPING] if self.respects_mask else open_ways(model, ctx)
        study, trials = self._study(ctx, ways), []
        for _ in range(count):
            trial = study.ask()
            attack = propose(trial, ways, deepest_redraw(model), fixed)
            value = merit(attack, model, ctx, held, SHARES[0])
            study.tell(trial, value)
            trials.append((value, attack, in_words(trial.params)))
        return trials

    def _study(self, ctx: Context, ways: list[str]) -> optuna.Study:
        seed = int(torch.randint(2**31, (), generator=ctx.generator("search")))
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.startup)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for known in (known for known in known_strong(ctx) if known["way"] in ways):
            study.enqueue_trial(known)
        return study


def affordable(runs: int) -> list[int]:
    """Return how many trials run for each of the SHARES, so that all take no more steps than so many whole runs.

    A share for which one trial would be left is left out, since it decides nothing.
    """

    def counts(first: int) -> list[int]:
        found = [first // REDUCTION**rung for rung in range(len(SHARES))]
        return [count for rung, count in enumerate(found) if not rung or count > 1]

    def cost(first: int) -> float:
        return sum(share * count for share, count in zip(SHARES, counts(first), strict=False))

    return counts(max(first for first in range(1, round(runs / SHARES[0]) + 1) if cost(first) <= runs))


def merit(attack: Tuning, model: nn.Module, ctx: Context, held: Split, share: float) -> float:
    """Return how good an attack is on samples put aside after a share of the budget: score, less a little."""
    with suppress(FloatingPointError):
        fit = attack.fit_of(copy.deepcopy(model), replace(ctx, steps=max(1, int(share * ctx.steps))))
        assert fit is not None
        for _ in fit.run():
            pass
        return preference(fit.adapted, held)
    return LOST


def preference(model: nn.Module, held: Split) -> float:
    """Return the score less L / (1 + L) samples' shares of it, for the loss L, so that it decides between equals."""
    score = float(correct(model, held).sum())
    x, targets = held.whole(torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = float(held.objective.loss(model.eval()(x), targets).clamp(max=1e6))
    return (score - loss / (1 + loss)) / len(held)


def divided(data: Split, generator: torch.Generator) -> tuple[Split, Split]:
    """Return a random fifth of the samples with the class proportions of all, and the rest."""
    place = torch.rand(len(data), generator=generator).to(data.y.device)
    own = data.y[:, None] == data.y
    rank = (own & (place < place[:, None])).sum(1)
    # The middle of the k-th of a class's n samples is (k + 1/2) / n: a fifth of each class lies below a fifth.
    order = ((rank + 0.5) / own.sum(1) + 1e-6 * place).argsort()
    count = round(HELD_OUT * len(data))
    first, rest = (part.sort().values for part in (order[:count], order[count:]))
    return data.subset(first), data.subset(rest)


def in_words(params: Mapping[str, Any]) -> str:
    """Return a trial's parameters as one line."""
    way, *others = (f"{value:.2g}" if isinstance(value, float) else str(value) for value in params.values())
    return f"{way}: {', '.join(others)}"
