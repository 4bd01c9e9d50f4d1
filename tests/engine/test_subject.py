"""What runs an attack: a climb for one fit, a run a budget for a loop of its own, and no step more than it may take."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from learning import SMALL, data
from torch import nn
from torch.nn import functional as F

from ntbench.engine.subject import Grant, Snapshot, attacked, global_seeds, protected
from ntbench.learn.models import BlackBox, build, head, pack
from ntbench.method import Access, Attack, Context, Defense, Fit, Training, create_optimizer, descend
from ntbench.types import digest

ENDS = (1, 2, 5, 10)
CALLS: list[Context] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    CALLS.clear()


def granted(**changes: Any) -> Grant:
    grant = Grant(
        arch=SMALL,
        classes=10,
        weights=pack(build(SMALL, 10, seed=0)),
        source=None,
        target=data(),
        source_val=None,
        target_val=None,
        target_classes=10,
        ends=ENDS,
        seed=4,
        fresh_seed=5,
        key=digest("grant"),
        precision="float32",
        device=torch.device("cpu"),
    )
    return replace(grant, **changes)


class Fitting(Attack):
    name = "fitting"
    schedule: str = "cooldown"
    optimizer: str = "adam"
    told: str = ""

    def fit_of(self, model: nn.Module, ctx: Context) -> Fit:
        CALLS.append(ctx)
        assert ctx.target is not None
        if self.told:
            self._search(model, ctx)
        training = Training(optimizer=self.optimizer, schedule=self.schedule, steps=ctx.steps, batch_size=8)
        return Fit(model, ctx.target, training, ctx.generator("batches"), told=self.told)

    def _search(self, model: nn.Module, ctx: Context) -> None:
        assert ctx.target is not None
        trial = ctx.fresh(10)
        optimizer = create_optimizer(trial.parameters(), "sgd", 0.1)
        for step in range(1, 8):
            descend(optimizer, F.cross_entropy(trial(ctx.target.x), ctx.target.y), step)


class Looping(Attack):
    """Has a loop of its own; how it misbehaves is a parameter."""

    name = "looping"
    steps_a_yield: int = 1
    extra: int = 0
    early: int = 0
    unscored: int = 0

    def attack(self, model: nn.Module, ctx: Context) -> Generator[nn.Module, None, str]:
        CALLS.append(ctx)
        assert ctx.target is not None
        optimizer = create_optimizer(model.parameters(), "sgd", 0.01)
        batches = ctx.target.batches(8, ctx.generator("batches"))
        model.train()
        for step in range(1, ctx.steps + 1 + self.extra - self.early):
            for _ in range(self.steps_a_yield):
                x, y = next(batches)
                descend(optimizer, F.cross_entropy(model(x), y), step)
            yield model
        for _ in range(self.unscored):
            descend(optimizer, F.cross_entropy(model(x), y), 1)
        return f"the way to {ctx.steps}"


class Late(Looping):
    name = "late"
    at_horizon_alone: ClassVar[bool] = True


class Idle(Attack):
    """Yields nothing from some budget on."""

    name = "idle"
    until: int = 0

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        for _ in range(ctx.steps if ctx.steps < self.until else 0):
            yield model


def weights_at(attack: Attack, **changes: Any) -> dict[int, dict[str, torch.Tensor]]:
    return {snapshot.step: pack(snapshot.model) for snapshot in attacked(attack, granted(**changes))}


def run(attack: Attack, **changes: Any) -> list[Snapshot]:
    return list(attacked(attack, granted(**changes)))


def test_one_fit_is_prepared_once_and_climbs_through_all_budgets() -> None:
    found = run(Fitting())
    assert [s.step for s in found] == [s.cost.steps for s in found] == list(ENDS)
    assert [s.cost.samples for s in found] == [8 * end for end in ENDS]
    assert [ctx.steps for ctx in CALLS] == [10]
    # Cooldowns of 1, 1, 1 and 2 steps from forks at 0, 1, 4 and 8.
    assert [s.paid for s in found] == [0 + 1, 1 + 2, 4 + 3, 8 + 5]


@pytest.mark.parametrize("optimizer", ["adam", "momentum", "muon"])
def test_every_budget_of_a_climb_is_a_run_of_that_budget_alone(optimizer: str) -> None:
    whole = weights_at(Fitting(optimizer=optimizer))
    for end in ENDS:
        (alone,) = weights_at(Fitting(optimizer=optimizer), ends=(end,)).values()
        assert all(torch.equal(alone[name], whole[end][name]) for name in alone)


@pytest.mark.parametrize(("schedule", "steps"), [("constant", ENDS), ("linear", (10,)), ("cosine", (10,))])
def test_a_schedule_that_decays_yields_its_last_budget_alone(schedule: str, steps: tuple[int, ...]) -> None:
    assert tuple(s.step for s in run(Fitting(schedule=schedule))) == steps


def test_a_search_that_says_what_it_chose_is_paid_and_no_part_of_the_run() -> None:
    found, plain = run(Fitting(told="adam at 1e-3")), run(Fitting())
    assert [s.cost.steps for s in found] == list(ENDS)
    assert [s.cost.samples for s in found] == [s.cost.samples for s in plain]
    assert [s.paid for s in found] == [s.paid + 7 for s in plain]
    assert {s.choice for s in found} == {"adam at 1e-3"} and {s.choice for s in plain} == {""}


def test_a_loop_of_its_own_is_run_anew_for_every_budget() -> None:
    found = run(Looping())
    assert [s.step for s in found] == [s.cost.steps for s in found] == list(ENDS)
    assert [ctx.steps for ctx in CALLS] == list(ENDS)
    assert [s.paid for s in found] == [1, 3, 8, 18], "what a budget cost stays paid"
    assert [s.choice for s in found] == [f"the way to {end}" for end in ENDS]
    assert all(a.model is not b.model for a, b in itertools.pairwise(found))
    (alone,) = weights_at(Looping(), ends=(5,)).values()
    assert all(torch.equal(alone[name], tensor) for name, tensor in weights_at(Looping())[5].items())


def test_a_loop_may_run_at_the_horizon_alone() -> None:
    (snapshot,) = run(Late())
    assert (snapshot.step, snapshot.cost.steps, snapshot.paid) == (10, 10, 10)
    assert [ctx.steps for ctx in CALLS] == [10]


def test_a_loop_may_end_early() -> None:
    found = run(Looping(early=1), ends=(5, 10))
    assert [s.step for s in found] == [5, 10] and [s.cost.steps for s in found] == [4, 9]


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (Looping(steps_a_yield=2), "over budget: 2 optimizer steps at yield 1 of 1; yield after every step"),
        (Looping(extra=1), "over budget: 2 optimizer steps at yield 2 of 1; yield after every step"),
    ],
)
def test_steps_beyond_the_budget_are_an_error(attack: Attack, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        run(attack)


def test_steps_after_the_last_yield_are_over_budget_too() -> None:
    with pytest.raises(RuntimeError, match="over budget"):
        run(Looping(unscored=3))


class Preparing(Fitting):
    name = "preparing"

    def fit_of(self, model: nn.Module, ctx: Context) -> Fit:
        self._search(model, ctx)
        return super().fit_of(model, ctx)


def test_steps_that_prepare_a_fit_are_over_budget_unless_a_search_tells_of_them() -> None:
    with pytest.raises(RuntimeError, match="over budget: 8 optimizer steps at yield 1 of 1"):
        run(Preparing())


def test_an_attack_that_yields_nothing_is_an_error_and_keeps_what_was_before() -> None:
    steps = attacked(Idle(until=3), granted())
    assert [next(steps).step, next(steps).step] == [1, 2]
    with pytest.raises(RuntimeError, match="the attack yields no model; yield the adapted model after every"):
        next(steps)
    with pytest.raises(RuntimeError, match="yields no model"):
        run(Idle())


class Asking(Attack):
    name = "asking"
    access: ClassVar[Access] = Access(weights=False)

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        assert isinstance(model, BlackBox) and not list(model.parameters()) and ctx.target
        model(ctx.target.x)
        for _ in range(ctx.steps):
            yield model


def test_questions_to_a_black_box_are_counted_at_every_budget() -> None:
    assert [(s.cost.steps, s.cost.samples) for s in run(Asking())] == [(0, 50)] * len(ENDS)


class Heady(Fitting):
    name = "heady"

    @property
    def on_features(self) -> bool:
        return True


def test_an_attack_on_features_gets_the_head_alone() -> None:
    layer = {"weight": torch.randn(10, 6), "bias": torch.zeros(10)}
    features = replace(data(), held=torch.randn(50, 6))
    (snapshot,) = run(Heady(), weights=layer, target=features, ends=(4,))
    assert sum(p.numel() for p in snapshot.model.parameters()) == 70
    assert (snapshot.cost.samples, head(snapshot.model).in_features) == (32, 6)


class Vandal(Attack):
    name = "vandal"

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        assert ctx.target
        CALLS.append(ctx)
        assert bool((ctx.target.y != 77).all())
        ctx.target.x.zero_()
        ctx.target.y.fill_(77)
        next(model.parameters()).data.fill_(1.0)
        for _ in range(ctx.steps):
            yield model


def test_what_a_run_writes_into_its_data_and_weights_reaches_no_other_budget() -> None:
    grant = granted()
    held, weight = grant.target, grant.weights["blocks.0.0.weight"].clone()
    assert len(list(attacked(Vandal(), grant))) == len(ENDS)
    assert held is not None and torch.equal(held.x, data().x) and torch.equal(held.y, data().y)
    assert torch.equal(grant.weights["blocks.0.0.weight"], weight)
    assert CALLS[0].target is not CALLS[1].target


class Drawing(Defense):
    name = "drawing"

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        assert ctx.steps == 0
        with torch.no_grad():
            head(model).bias.add_(torch.rand(10))
        return model


def test_global_random_states_follow_the_key_and_stand_as_before() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, _ = protected(Drawing(), granted())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, cost = protected(Drawing(), granted())
    other, _ = protected(Drawing(), granted(key=digest("another")))
    assert torch.equal(first["head.bias"], again["head.bias"])
    assert not torch.equal(first["head.bias"], other["head.bias"]) and cost.steps == 0
    with global_seeds(digest("x")):
        torch.rand(1)


def test_a_fresh_model_is_random_whatever_the_architecture_says_of_weights() -> None:
    arch = SMALL.model_copy(update={"params": {"checkpoint_path": "/does/not/exist"}})
    found = pack(granted(arch=arch).context(1).fresh(10))
    assert all(torch.equal(found[name], tensor) for name, tensor in pack(granted().fresh(10)).items())
