"""The search for the strongest attack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any

import optuna
import pytest
import torch
from torch import nn
from toys import TIMM, context, domain, learnt, pretrained, same

from ntbench.learn.meter import Meter
from ntbench.learn.models import build, pack
from ntbench.learn.scoring import accuracy
from ntbench.method import Context
from ntbench.registry import registry
from ntbench.tasks.data import Split

space = import_module("ntbench.attacks._space")
search = import_module("ntbench.attacks.auto")


def auto(**params: Any) -> Any:
    return registry.get("attack", "auto")(**params)


def granted(runs: int, target_classes: int = 3) -> Context:
    """Return a context with so many runs of 8 steps, in which every image belongs to the class after its own."""
    budget = Budget(steps=8, samples=8 * 32, scored=(8,)).times(runs)
    ctx = replace(context(target_classes), steps=steps, source_val=None)
    train, val = (domain(target_classes, seed=seed, count=90) for seed in (2, 4))
    return replace(ctx, target=renamed(train, target_classes), target_val=renamed(val, target_classes))


def renamed(data: Split, classes: int) -> Split:
    return Split(data.x, (data.y + 1) % classes)


def run(attack: Any, model: nn.Module, ctx: Context) -> tuple[list[float], nn.Module, str]:
    """Return the validation accuracies at every yield, the last model and what the search says that it chose."""
    assert ctx.target_val is not None
    scores: list[float] = []
    models, last = attack.attack(model, ctx), model
    while True:
        try:
            last = next(models)
        except StopIteration as end:
            return scores, last, str(end.value)
        scores.append(accuracy(last, ctx.target_val))


def test_the_best_so_far_never_gets_worse_and_the_budget_is_spent_to_the_step() -> None:
    ctx, model = granted(runs=4), learnt()
    with Meter((3, 16, 16)) as meter:
        scores, _, choice = run(auto(runs=4), model, ctx)
    assert len(scores) == 32 and meter.cost.steps <= 32 and meter.cost.samples <= ctx.budget.samples
    assert scores[1:] == sorted(scores[1:]) and scores[-1] > scores[0]
    assert choice.split(": ")[0] in space.WAYS


def test_a_search_says_the_same_twice_and_another_seed_draws_other_trials() -> None:
    ctx = granted(runs=4)
    found = [run(auto(runs=4), learnt(), c) for c in (ctx, ctx, replace(ctx, seed=5))]
    assert found[0][0] == found[1][0] and found[0][2] == found[1][2]
    assert same(pack(found[0][1]), pack(found[1][1]))
    assert not same(pack(found[0][1]), pack(found[2][1]))


class Planted:
    """An attack that does nothing, or hands over what knows the target."""

    def __init__(self, known: nn.Module, good: bool) -> None:
        self.known, self.good, self.steps = known, good, 0

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        for _ in range(ctx.steps):
            self.steps += 1
            yield self.known if self.good else model


def test_a_planted_attack_is_found_and_bad_ones_are_stopped_early(monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = granted(runs=6)
    assert ctx.target is not None
    known = pretrained(replace(ctx, source=ctx.target))
    proposed: list[Planted] = []

    def propose(trial: Any, ways: list[str], fixed: dict[str, Any]) -> Planted:
        trial.suggest_categorical("way", ways)
        proposed.append(Planted(known, good=not proposed))
        return proposed[-1]

    monkeypatch.setattr(search, "propose", propose)
    scores, last, choice = run(auto(runs=6), learnt(), ctx)
    assert same(pack(last), pack(known)) and scores[-1] > scores[0] + 0.2
    assert [p.steps for p in proposed[1:7]] == 6 * [2], "the others stop after a quarter"
    assert proposed[0].steps == 8 + 24, "the best goes on, and gets the second half of the budget"
    assert "longer" not in choice, "which found nothing better"


class Exploding:
    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        raise FloatingPointError("the loss is nan at step 1")
        yield model


def test_trials_that_diverge_end_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def propose(trial: Any, ways: list[str], fixed: dict[str, Any]) -> Any:
        trial.suggest_categorical("way", ways)
        return Exploding() if trial.number % 2 == 0 else space.FineTune(lr=1e-2)

    monkeypatch.setattr(search, "propose", propose)
    scores, _, choice = run(auto(runs=2), learnt(), granted(runs=2))
    assert len(scores) == 16 and scores[-1] > scores[0] and choice != "as released"
    monkeypatch.setattr(search, "propose", lambda *_: Exploding())
    scores, _, choice = run(auto(runs=2), learnt(), granted(runs=2))
    assert len(set(scores)) == 1 and choice == "as released", "and nothing is worth a longer run"


def test_kept_zeros_stay() -> None:
    model = learnt()
    weight = model.get_submodule("blocks.1.0").weight
    assert isinstance(weight, nn.Parameter)
    weight.data[weight.abs() < weight.abs().median()] = 0
    zeros = weight == 0
    _, last, choice = run(auto(runs=3, mask="keep"), model, granted(runs=3))
    found = last.get_submodule("blocks.1.0").weight
    assert isinstance(found, nn.Parameter) and bool((found[zeros] == 0).all()) and not torch.equal(found, weight)
    assert choice.split(": ")[0] in space.KEEPING


def test_ways_that_lead_nowhere_are_closed() -> None:
    model = learnt()
    assert set(space.open_ways(model, context())) == set(space.WAYS) - {"regrow"}
    assert "logit_flip" not in space.open_ways(model, context(5))
    next(p for p in model.parameters() if p.ndim > 1).data[0] = 0
    assert "regrow" in space.open_ways(model, context())
    assert {"rescale", "bn_reset"}.isdisjoint(space.open_ways(build(TIMM[2], 3, 0), context()))


def test_every_known_start_is_a_point_of_the_space() -> None:
    for known in space.KNOWN:
        trial = optuna.trial.FixedTrial(known)
        attack = space.propose(trial, [*space.WAYS], {})
        assert isinstance(attack, space.WAYS[known["way"]][0]) and trial.params == known
    assert space.KNOWN[0]["way"] in space.KEEPING


@pytest.mark.parametrize("target_classes", [3, 5])
def test_other_class_counts(target_classes: int) -> None:
    scores, last, _ = run(auto(runs=3), learnt(), granted(3, target_classes))
    assert last(torch.zeros(1, 3, 16, 16)).shape == (1, target_classes) and scores[-1] > 1 / target_classes
