"""The fit loop: plain training, and the climb through budgets that gives what a run of each budget alone gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learning import SMALL, data, generator
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.learn.fit import COOLDOWN, EXPLODED, Fit, check_loss, descend, fit
from ntbench.learn.meter import Meter
from ntbench.learn.models import build, head, pack
from ntbench.learn.optim import create_optimizer
from ntbench.learn.scoring import accuracy
from ntbench.types import Budget, Training

Weights = dict[str, Tensor]
ENDS = Budget(t90=2.5).ends
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "lamb", "muon")


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def prepared(training: Training, model: nn.Module | None = None, **options: Any) -> Fit:
    return Fit(model or build(SMALL, 10, seed=0), data(), training, generator(), **options)


def trained(training: Training) -> Weights:
    model = build(SMALL, 10, seed=0)
    steps = list(fit(model, data(), training, generator()))
    assert steps == list(range(1, training.steps + 1))
    return pack(model)


def by_hand(training: Training, optimizer: Callable[[list[Tensor]], torch.optim.Optimizer]) -> Weights:
    model, split = build(SMALL, 10, seed=0), data()
    steps = optimizer(list(model.parameters()))
    batches = split.batches(training.batch_size, generator())
    model.train()
    for _ in range(training.steps):
        x, y = next(batches)
        steps.zero_grad()
        F.cross_entropy(model(x), y).backward()
        steps.step()
    return pack(model)


def climbed(fitted: Fit, ends: tuple[int, ...], meter: Meter | None = None) -> dict[int, Weights]:
    """Return the weights at every end, with the model scored at each of them as the engine does."""
    found: dict[int, Weights] = {}
    meter = meter or Meter((3, 8, 8))
    steps = fitted.climb(ends, meter)
    while True:
        with meter:
            end = next(steps, None)
        if end is None:
            return found
        accuracy(fitted.adapted, data(seed=9))
        found[end] = pack(fitted.adapted)


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("sgd", lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=0.01, fused=True)),
        ("momentum", lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01, fused=True)),
        ("nesterov", lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01, fused=True)),
        ("adam", lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=0.01, fused=True)),
        ("adamw", lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.01, fused=True)),
    ],
)
def test_fit_is_the_plain_torch_loop_bit_for_bit(
    name: str, oracle: Callable[[list[Tensor]], torch.optim.Optimizer]
) -> None:
    training = Training(optimizer=name, lr=0.05, weight_decay=0.01, steps=7, batch_size=16)
    assert same(trained(training), by_hand(training, oracle))


def test_fit_does_not_depend_on_the_global_random_state() -> None:
    training = Training(steps=3, batch_size=16)
    torch.manual_seed(1)
    first = trained(training)
    torch.manual_seed(2)
    assert same(first, trained(training))


def test_fit_trains_the_given_parameters_only() -> None:
    model = build(SMALL, 10, seed=0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in fit(model, data(), Training(steps=2), generator(), parameters=head(model).parameters()):
        pass
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"head.weight", "head.bias"}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", ["cooldown", "constant"])
def test_a_climb_gives_at_every_end_what_a_run_up_to_there_gives(optimizer: str, schedule: str) -> None:
    training = Training(optimizer=optimizer, lr=0.01, schedule=schedule, steps=ENDS[-1], batch_size=16)
    whole = climbed(prepared(training), ENDS)
    assert tuple(whole) == ENDS == (1, 2, 5, 10, 20)
    for end in ENDS:
        alone = climbed(prepared(training.model_copy(update={"steps": end})), (end,))
        assert same(whole[end], alone[end]), end
    assert not same(whole[10], whole[20])


@settings(max_examples=12)
@given(
    ends=st.sets(st.integers(1, 14), min_size=2, max_size=4).map(lambda found: tuple(sorted(found))),
    warmup=st.sampled_from([0, 3]),
    batch_size=st.sampled_from([1, 7, 64]),
)
def test_any_rising_budgets_are_prefixes_of_one_climb(ends: tuple[int, ...], warmup: int, batch_size: int) -> None:
    training = Training(schedule="cooldown", warmup=warmup, steps=ends[-1], batch_size=batch_size)
    whole = climbed(prepared(training), ends)
    for end in ends:
        alone = climbed(prepared(training.model_copy(update={"steps": end})), (end,))
        assert same(whole[end], alone[end]), end


def test_a_branch_draws_nothing_from_the_trunk() -> None:
    def dropping() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Dropout(0.5), nn.Linear(16, 10))

    training = Training(schedule="cooldown", steps=10, batch_size=16)
    whole = climbed(prepared(training, dropping()), (5, 10))
    alone = climbed(prepared(training, dropping()), (10,))
    assert same(whole[10], alone[10])


def test_a_cooldown_is_the_last_fifth_on_batches_of_its_own() -> None:
    training = Training(optimizer="momentum", lr=0.05, schedule="cooldown", steps=10, batch_size=16)
    found = climbed(prepared(training), (5, 10))
    for end, cooled in ((5, 1), (10, 2)):
        model = build(SMALL, 10, seed=0).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=True)
        trunk, branch = (data().batches(16, generator(seed)) for seed in (3, 3 + end))
        for step in range(end):
            x, y = next(trunk if step < end - cooled else branch)
            left = min(end - step, cooled + 1)
            optimizer.param_groups[0]["lr"] = 0.05 * left / (cooled + 1)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        assert same(found[end], pack(model))


def test_a_run_cools_down_as_a_climb_to_its_end_does() -> None:
    training = Training(lr=0.01, schedule="cooldown", steps=10, batch_size=16)
    assert same(trained(training), climbed(prepared(training), (10,))[10])


def test_a_constant_rate_needs_no_branch() -> None:
    training = Training(lr=0.01, schedule="constant", steps=10, batch_size=16)
    found = climbed(prepared(training), (2, 5, 10))
    for end in found:
        assert same(found[end], trained(training.model_copy(update={"steps": end})))


def test_steps_by_epoch_follow_the_data_and_count_at_every_end() -> None:
    split = data()
    each = math.ceil(len(split) / 16)
    training = Training(optimizer="sgd", lr=0.1, schedule="step every 2 epochs", steps=4 * each, batch_size=16)
    found = climbed(prepared(training), (each, 2 * each, 4 * each))
    for end in found:
        assert same(found[end], trained(training.model_copy(update={"steps": end})))
    constant = climbed(prepared(training.model_copy(update={"schedule": "constant"})), tuple(found))
    assert same(found[2 * each], constant[2 * each]) and not same(found[4 * each], constant[4 * each])


@pytest.mark.parametrize("schedule", ["linear", "cosine", "step", "poly", "tanh"])
def test_a_schedule_that_decays_to_one_end_counts_there_alone(schedule: str) -> None:
    training = Training(lr=0.01, schedule=schedule, steps=10, batch_size=16)
    found = climbed(prepared(training), (2, 5, 10))
    assert tuple(found) == (10,) and same(found[10], trained(training))


def test_a_climb_costs_what_each_run_alone_costs_and_pays_for_its_branches() -> None:
    training = Training(lr=0.01, schedule="cooldown", steps=ENDS[-1], batch_size=16)
    meter, costs, paid = Meter((3, 8, 8)), [], []
    steps = prepared(training).climb(ENDS, meter)
    while True:
        with meter:
            if next(steps, None) is None:
                break
        costs.append(meter.cost)
        paid.append(meter.paid)
    a_step = costs[0].flops
    assert [cost.steps for cost in costs] == list(ENDS)
    assert [cost.samples for cost in costs] == [16 * end for end in ENDS]
    assert [cost.flops for cost in costs] == [a_step * end for end in ENDS] and a_step > 0
    cooled = [max(1, round(COOLDOWN * end)) for end in ENDS]
    trunk = [end - last for end, last in zip(ENDS, cooled, strict=True)]
    assert paid == [trunk[k] + sum(cooled[: k + 1]) for k in range(len(ENDS))]
    assert paid[-1] / ENDS[-1] <= 1.4


def test_rates_of_groups_cool_down_each_from_its_own() -> None:
    seen: list[tuple[float, ...]] = []
    model = build(SMALL, 10, seed=0)
    last = list(head(model).parameters())
    rest = [p for p in model.parameters() if all(p is not q for q in last)]
    groups = [{"params": last, "lr": 0.1}, {"params": rest, "lr": 0.01}]

    class Watched(Fit):
        def begin(self) -> Any:
            optimizer, *others = super().begin()
            optimizer.register_step_pre_hook(lambda o, *_: seen.append(tuple(g["lr"] for g in o.param_groups)))
            return optimizer, *others

    training = Training(optimizer="sgd", schedule="cooldown", steps=10, batch_size=16)
    for _ in Watched(model, data(), training, generator(), parameters=groups).climb((10,), Meter()):
        pass
    assert len(seen) == 10 and set(seen[:8]) == {(0.1, 0.01)}
    assert seen[8:] == [pytest.approx((0.2 / 3, 0.02 / 3)), pytest.approx((0.1 / 3, 0.01 / 3))]


def test_a_climb_that_diverges_keeps_what_it_yielded_before() -> None:
    calls: list[int] = []

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        calls.append(1)
        return F.cross_entropy(logits, labels) * (math.nan if len(calls) == 4 else 1.0)

    steps = prepared(Training(schedule="constant", steps=8), loss=loss).climb((1, 2, 4, 8), Meter())
    assert [next(steps), next(steps)] == [1, 2]
    with pytest.raises(FloatingPointError, match="the loss is nan at step 4"):
        next(steps)


def test_what_is_handed_over_may_be_another_model_than_the_one_that_trains() -> None:
    other = build(SMALL, 10, seed=5)
    assert prepared(Training(), outcome=lambda: other).adapted is other
    fitted = prepared(Training())
    assert fitted.adapted is fitted.model


def test_a_batch_is_no_larger_than_the_data() -> None:
    assert prepared(Training(batch_size=16)).batch_size == 16
    assert prepared(Training(batch_size=64)).batch_size == 50


@pytest.mark.parametrize("value", [math.nan, math.inf, 2 * EXPLODED])
def test_a_loss_that_explodes_ends_training_with_the_step_and_the_value(value: float) -> None:
    model = build(SMALL, 10, seed=0)
    calls: list[int] = []

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        calls.append(1)
        return F.cross_entropy(logits, labels) * 0 + (value if len(calls) == 3 else 1.0)

    done: list[int] = []
    with pytest.raises(FloatingPointError, match=rf"the loss is {value} at step 3"):
        done.extend(fit(model, data(), Training(steps=5), generator(), loss=loss))
    assert done == [1, 2]
    assert all(torch.isfinite(tensor).all() for tensor in pack(model).values())


def test_a_bounded_loss_is_no_reason_to_stop() -> None:
    check_loss(EXPLODED, 1, EXPLODED)
    with pytest.raises(FloatingPointError, match=r"the loss is 10000\.5 at step 7"):
        check_loss(EXPLODED + 0.5, 7, EXPLODED)


def test_descend_clips_the_norm_of_the_whole_gradient() -> None:
    a, b = torch.zeros(2, requires_grad=True), torch.zeros(3, requires_grad=True)
    optimizer = create_optimizer([a, b], "sgd", lr=1.0)
    descend(optimizer, 3 * a.sum() + 4 * b.sum(), step=1, clip=1.0)
    norm = math.sqrt(2 * 9 + 3 * 16)
    torch.testing.assert_close(a.detach(), torch.full((2,), -3 / norm), rtol=1e-5, atol=0)
    torch.testing.assert_close(b.detach(), torch.full((3,), -4 / norm), rtol=1e-5, atol=0)


def test_fit_calls_back_after_each_step_and_trains_in_train_mode() -> None:
    model = build(SMALL, 10, seed=0).eval()
    modes: list[bool] = []
    for _ in fit(model, data(), Training(steps=3), generator(), after_step=lambda: modes.append(model.training)):
        pass
    assert modes == [True] * 3


def test_after_a_branch_the_model_trains_on_in_train_mode_and_calls_back_on_branches_too() -> None:
    modes: list[bool] = []
    model = build(SMALL, 10, seed=0)
    training = Training(schedule="cooldown", steps=10, batch_size=16)
    for _ in prepared(training, model, after_step=lambda: modes.append(model.training)).climb((5, 10), Meter()):
        model.eval()
    assert modes == [True] * (5 + 1 + 5)
