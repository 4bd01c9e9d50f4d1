"""What runs a method: it holds what the threat model grants and nothing else, and hands over weights."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ntbench.learn.fit import Fit
from ntbench.learn.meter import Cost, Meter
from ntbench.learn.models import BlackBox, Head, build, head, pack, unpack
from ntbench.method import Attack, Context, Defense
from ntbench.tasks.classification import CLASSIFYING
from ntbench.tasks.data import Split
from ntbench.tasks.objective import Objective
from ntbench.types import Arch, Precision

Weights = dict[str, Tensor]
SPLITS = ("source", "target", "source_val", "target_val", "unlabelled")
"""The data that a method may be granted, by their names in a grant and in a context."""


@dataclass(frozen=True, eq=False)
class Grant:
    """Everything that a method gets: the weights of a model of so many classes, data, and what the recipe decides.

    `ends` are an attack's budgets in steps; `seed` decides batches and subsets, `fresh_seed` fresh models, and `key`
    the global random states.
    """

    arch: Arch
    classes: int
    weights: Weights
    source: Split | None
    target: Split | None
    source_val: Split | None
    target_val: Split | None
    target_classes: int
    ends: tuple[int, ...]
    seed: int
    fresh_seed: int
    key: str
    precision: Precision
    device: torch.device
    objective: Objective = field(default=CLASSIFYING, kw_only=True)
    unlabelled: Split | None = field(default=None, kw_only=True)

    def model(self) -> nn.Module:
        """Return the model that the weights belong to."""
        return unpack(self.weights, self.fresh(self.classes))

    def fresh(self, classes: int) -> nn.Module:
        """Return a randomly initialised model of the declared architecture."""
        return build(self.arch, classes, self.fresh_seed).to(self.device)

    def context(self, steps: int) -> Context:
        """Return what a method sees, with copies of the data: what it writes there reaches no other cell."""
        data: Any = {name: _copied(getattr(self, name)) for name in SPLITS}
        return Context(
            **data,
            target_classes=self.target_classes,
            steps=steps,
            seed=self.seed,
            device=self.device,
            fresh=self.fresh,
            objective=self.objective,
        )

    def meter(self) -> Meter:
        """Return a meter that counts images of the granted data."""
        data = self.target or self.source
        return Meter(data.shown if data else ())

    @contextmanager
    def numerics(self) -> Iterator[None]:
        """Compute in the recipe's precision inside the block."""
        exact = self.precision == "float32"
        # A cache of cast weights would outlive the optimizer's steps.
        cast: Any = nullcontext() if exact else torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)
        with cast:
            yield


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a run of one budget ends with; `paid` are all steps so far, trials included."""

    step: int
    cost: Cost
    paid: int
    model: nn.Module
    choice: str = ""


def protected(defense: Defense, grant: Grant) -> tuple[Weights, Cost]:
    """Return the weights that a defense releases, and what they cost.

    Raises FloatingPointError on weights that are not finite.
    """
    with global_seeds(grant.key), grant.numerics(), grant.meter() as meter:
        released = defense.protect(grant.model(), grant.context(0))
    return pack(released), meter.cost


def attacked(attack: Attack, grant: Grant) -> Iterator[Snapshot]:
    """Run an attack and yield what it has at every budget that it can be scored at, the smallest first.

    Raises RuntimeError where it takes more optimizer steps than it may, or hands over nothing.
    """
    with global_seeds(grant.key):
        yield from _climbed(attack, grant) if attack.is_one_fit else _looped(attack, grant)


def begun(attack: Attack, grant: Grant) -> tuple[Fit, Meter]:
    """Return the training that is all there is to an attack, and a meter that says what preparing it cost."""
    meter = grant.meter()
    with meter, grant.numerics():
        fit = attack.fit_of(_seen(attack, grant), grant.context(grant.ends[-1]))
    assert fit is not None
    if fit.told:
        meter.begin_run()
    return fit, meter


def _climbed(attack: Attack, grant: Grant) -> Iterator[Snapshot]:
    fit, meter = begun(attack, grant)
    ends = fit.climb(grant.ends, meter)
    while True:
        with meter, grant.numerics():
            end = next(ends, None)
        if end is None:
            return
        _refuse_more(meter, end, end)
        yield Snapshot(end, meter.cost, meter.paid, fit.adapted, fit.told)


def _looped(attack: Attack, grant: Grant) -> Iterator[Snapshot]:
    meter = grant.meter()
    for end in grant.ends[-1:] if attack.at_horizon_alone else grant.ends:
        meter.begin_run()
        models = attack.attack(_seen(attack, grant), grant.context(end))
        last, choice = None, ""
        for step in range(1, end + 2):
            with meter, grant.numerics():
                try:
                    adapted: nn.Module | None = next(models)
                except StopIteration as over:
                    adapted, choice = None, str(over.value or "")
            # Whoever goes on after the last yield has handed over a model that still changes.
            _refuse_more(meter, min(step, end) if adapted is None else step, end)
            if adapted is None:
                break
            last = adapted
        if last is None:
            raise RuntimeError("the attack yields no model; yield the adapted model after every optimizer step")
        yield Snapshot(end, meter.cost, meter.paid, last, choice)


def _refuse_more(meter: Meter, step: int, end: int) -> None:
    if step > end or meter.cost.steps > step:
        raise RuntimeError(
            f"over budget: {meter.cost.steps} optimizer steps at yield {step} of {end}; yield after every step"
        )


def _seen(attack: Attack, grant: Grant) -> nn.Module:
    if attack.on_features:
        outputs, inputs = grant.weights["weight"].shape
        layer = nn.Linear(inputs, outputs, device=grant.device)
        layer.load_state_dict(grant.weights)
        return Head(layer)
    return grant.model() if attack.access.weights else BlackBox(grant.model())


def released_head(model: nn.Module) -> Weights:
    """Return what an attack on features gets of a model: the weights of its head."""
    return {name: tensor.detach().clone() for name, tensor in head(model).state_dict().items()}


@contextmanager
def global_seeds(key: str) -> Iterator[None]:
    """Fix the global random states from a key, so that a method that uses them is repeatable all the same."""
    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        seed = int(key, 16)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed % 2**63)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)


def _copied(data: Split | None) -> Split | None:
    return data and replace(data, held=data.held.clone(), y=data.y.clone())
