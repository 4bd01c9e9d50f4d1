"""The search for the strongest attack: what it tries, what it pays, what it chooses by and what it says."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import optuna
import pytest
import torch
from torch import nn
from toys import CNN, TIMM, context, domain, learnt, same

from ntbench.learn.fit import Fit
from ntbench.learn.meter import Meter
from ntbench.learn.models import build, pack
from ntbench.learn.scoring import accuracy
from ntbench.method import Context
from ntbench.registry import registry
from ntbench.tasks.data import Split
from ntbench.types import Training

space = import_module("ntbench.attacks._space")
search = import_module("ntbench.attacks.auto")


def auto(**params: Any) -> Any:
    return registry.get("attack", "auto")(**params)


def granted(steps: int = 16, classes: int = 3, count: int = 90) -> Context:
    """Return a context in which every image belongs to the class after its own."""
    data = domain(classes, seed=2, count=count)
    return replace(context(classes), source=None, source_val=None, steps=steps, target=turned(data, classes))


def turned(data: Split, classes: int) -> Split:
    return Split(data.x, (data.y + 1) % classes)


def run(attack: Any, model: nn.Module, ctx: Context) -> tuple[Fit, Meter]:
    meter = Meter()
    with meter:
        fit = attack.fit_of(model, ctx)
        meter.begin_run()
        for _ in fit.run():
            pass
    return fit, meter


@pytest.mark.parametrize("runs", [2, 3, 5, 8, 32])
def test_trials_take_what_is_there_and_no_more(runs: int) -> None:
    counts = search.affordable(runs - 1)
    assert sum(share * count for share, count in zip(search.SHARES, counts, strict=False)) <= runs - 1
    assert all(later == counts[0] // 4**rung for rung, later in enumerate(counts)) and min(counts) > 1
    more = [(counts[0] + 1) // 4**rung for rung in range(3)]
    assert sum(share * n for rung, (share, n) in enumerate(zip(search.SHARES, more, strict=True)) if n > 1) > runs - 1


def test_random_and_modelled_trials_happen_by_default() -> None:
    first = search.affordable(auto().runs - 1)[0]
    assert len(space.KNOWN) < auto().startup < first / 2


def test_the_search_is_paid_and_the_winner_trains_on_all_samples() -> None:
    ctx = granted()
    fit, meter = run(auto(), learnt(), ctx)
    assert meter.cost.steps == 16 and 6 * 16 < meter.paid <= 8 * 16
    assert len(fit.data) == 90 and fit.training.steps == 16 and fit.training.schedule == "cooldown"
    assert fit.told.split(": ")[0] in space.WAYS


def test_it_does_better_than_doing_nothing() -> None:
    ctx, test = granted(40), turned(domain(3, seed=4, count=90), 3)
    fit, _ = run(auto(), learnt(), ctx)
    assert accuracy(learnt(), test) < 0.2 and accuracy(fit.adapted, test) > 0.8


def test_a_search_says_the_same_twice_and_another_seed_draws_other_trials() -> None:
    ctx = granted(8)
    found = [run(auto(runs=3), learnt(), c)[0] for c in (ctx, ctx, replace(ctx, seed=5))]
    assert found[0].told == found[1].told and same(pack(found[0].adapted), pack(found[1].adapted))
    assert not same(pack(found[0].adapted), pack(found[2].adapted))


class Planted:
    """An attack that does nothing, or hands over what knows the target."""

    def __init__(self, known: nn.Module, good: bool) -> None:
        self.known, self.good, self.steps = known, good, list[int]()

    def fit_of(self, model: nn.Module, ctx: Context) -> Fit:
        assert ctx.target is not None
        self.steps.append(ctx.steps)
        outcome = (lambda: self.known) if self.good else (lambda: model)
        training = Training(optimizer="sgd", lr=1e-30, steps=ctx.steps)
        return Fit(model, ctx.target, training, ctx.generator("batches"), outcome=outcome)


def knowing(ctx: Context) -> nn.Module:
    model = learnt()
    for _ in registry.get("attack", "finetune")(optimizer="adam", lr=1e-2).attack(model, replace(ctx, steps=40)):
        pass
    return model


def test_a_planted_attack_is_found_and_bad_ones_are_stopped_early(monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = granted()
    known = knowing(ctx)
    proposed: list[Planted] = []

    def propose(trial: Any, *given: Any) -> Planted:
        trial.suggest_categorical("way", [*space.WAYS])
        proposed.append(Planted(known, good=len(proposed) == 20))
        return proposed[-1]

    monkeypatch.setattr(search, "propose", propose)
    fit, _ = run(auto(), learnt(), ctx)
    assert same(pack(fit.adapted), pack(known)) and len(proposed) == 40
    assert proposed[20].steps == [1, 4, 16, 16]
    assert sorted(len(p.steps) for p in proposed) == [1] * 30 + [2] * 8 + [3, 4]


def test_trials_that_diverge_end_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def exploding(*given: Any) -> Any:
        raise FloatingPointError("the loss is nan at step 1")

    monkeypatch.setattr(space.FineTune, "fit_of", exploding)
    fit, _ = run(auto(), learnt(), granted())
    assert fit.told.split(": ")[0] not in ("direct", "new head", "as released")


@pytest.mark.parametrize(("count", "chosen"), [(27, False), (30, True)])
def test_under_two_samples_a_class_nothing_is_chosen(count: int, chosen: bool) -> None:
    fit, meter = run(auto(), learnt(), granted(count=count))
    assert (fit.told == "too few to choose by: direct: momentum, 0.01") != chosen
    assert (meter.paid > 16) == chosen


@pytest.mark.parametrize("count", [30, 60, 89])
def test_what_is_put_aside_is_a_fifth_of_every_class_and_trained_on_by_nobody(count: int) -> None:
    data = domain(3, seed=2, count=count)
    held, rest = search.divided(data, torch.Generator().manual_seed(3))
    assert len(held) == round(count / 5) and len(held) + len(rest) == count
    sizes = torch.bincount(held.y, minlength=3)
    assert sizes.max() - sizes.min() <= 1
    seen = torch.cat([held.x, rest.x]).flatten(1)
    assert len(torch.unique(seen, dim=0)) == count
    other, _ = search.divided(data, torch.Generator().manual_seed(4))
    assert not torch.equal(held.x, other.x)


def test_equals_are_told_apart_by_cross_entropy_alone() -> None:
    held, models = domain(3, seed=2, count=10), []
    for scale in (1.0, 0.0):
        model = learnt().eval()
        head = model.get_submodule("head")
        for parameter in head.parameters():
            parameter.data.mul_(scale)
        models.append(model)
    sure, unsure = (search.preference(model, held) for model in models)
    assert sure <= accuracy(models[0], held) < sure + 0.1
    model = learnt()
    model.get_parameter("head.weight").data.mul_(0.5)
    assert accuracy(model, held) == accuracy(models[0], held) and search.preference(model, held) < sure
    assert unsure < sure


def test_kept_zeros_stay() -> None:
    model = learnt()
    weight = model.get_parameter("blocks.1.0.weight")
    weight.data[weight.abs() < weight.abs().median()] = 0
    zeros, before = weight == 0, weight.detach().clone()
    fit, _ = run(auto(runs=3, mask="keep"), model, granted())
    found = fit.adapted.get_parameter("blocks.1.0.weight")
    assert bool((found[zeros] == 0).all()) and not torch.equal(found, before)
    assert fit.told.split(": ")[0] in space.KEEPING and auto(mask="keep").respects_mask


def test_ways_that_lead_nowhere_are_closed() -> None:
    model = learnt()
    assert set(space.open_ways(model, context())) == set(space.WAYS) - {"regrow"}
    assert "logit_flip" not in space.open_ways(model, context(5))
    next(p for p in model.parameters() if p.ndim > 1).data[0] = 0
    assert "regrow" in space.open_ways(model, context())
    assert {"rescale", "bn_reset"}.isdisjoint(space.open_ways(build(TIMM[2], 3, 0), context()))


def test_every_known_start_is_a_point_of_the_space() -> None:
    deepest = space.deepest_redraw(build(CNN, 3, seed=0))
    assert deepest == 2
    for known in space.KNOWN:
        trial = optuna.trial.FixedTrial(known)
        attack = space.propose(trial, [*space.WAYS], deepest, {})
        assert isinstance(attack, space.WAYS[known["way"]][0]) and trial.params == known
    assert space.KNOWN[0]["way"] in space.KEEPING


@pytest.mark.parametrize("classes", [3, 5])
def test_other_class_counts(classes: int) -> None:
    fit, _ = run(auto(runs=3), learnt(), granted(classes=classes))
    assert fit.adapted.eval()(torch.zeros(1, 3, 16, 16)).shape == (1, classes)
