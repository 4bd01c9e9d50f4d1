"""Lanes: fits side by side end at what each ends at alone, but for the order of sums, which double precision shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from learning import SMALL, data, generator
from torch import Tensor, nn

from ntbench.learn.fit import Fit
from ntbench.learn.lanes import COUPLED, DECOUPLED, Lanes, lane_key
from ntbench.learn.meter import Cost, Meter
from ntbench.learn.models import build, head, pack
from ntbench.learn.scoring import correct
from ntbench.tasks.data import Split
from ntbench.tasks.denoising import Denoising
from ntbench.types import Arch, Training

ENDS = (5, 10)
DOUBLE = torch.float64
RATES = (1e-3, 3e-3, 1e-2)
GROUPS = Arch(name="test_efficientnet_gn")
WORST = 1e-9
"""The largest difference from a fit alone in double precision, relative to the largest weight of a tensor."""
WORST32 = 1e-3
"""The same in single precision, after 20 steps of a network of which no gradient is next to nothing."""


def fits(lanes: int = 3, arch: Arch = SMALL, size: int = 8, dtype: torch.dtype = DOUBLE, **plan: Any) -> list[Fit]:
    """Return fits with weights, samples, batches, rate and decay of their own."""
    plan = {"optimizer": "adam", "schedule": "cooldown", "steps": ENDS[-1], "batch_size": 16} | plan
    return [
        Fit(
            build(arch, 10, seed=lane).to(dtype),
            held_as(data(seed=lane, size=size), dtype),
            Training(lr=RATES[lane % 3], weight_decay=0.01 * lane, **plan),
            generator(lane),
        )
        for lane in range(lanes)
    ]


def held_as(split: Split, dtype: torch.dtype) -> Split:
    return replace(split, held=split.held.to(dtype))


def climbed(fit: Fit, ends: tuple[int, ...] = ENDS) -> tuple[dict[int, dict[str, Tensor]], list[Cost]]:
    found: dict[int, dict[str, Tensor]] = {}
    costs: list[Cost] = []
    meter = Meter(tuple(fit.data.held.shape[1:]))
    steps = fit.climb(ends, meter)
    while True:
        with meter:
            end = next(steps, None)
        if end is None:
            return found, costs
        found[end] = pack(fit.model)
        costs.append(meter.cost)


def assert_alike(found: dict[str, Tensor], alone: dict[str, Tensor], worst: float = WORST) -> None:
    assert found.keys() == alone.keys()
    for name, tensor in alone.items():
        difference = float((found[name].double() - tensor.double()).abs().max())
        assert difference <= worst * float(tensor.double().abs().max()), name


def assert_lanes_end_as_alone(
    make: Callable[[], list[Fit]], ends: tuple[int, ...] = ENDS, worst: float = WORST
) -> None:
    alone = [climbed(fit, ends)[0] for fit in make()]
    lanes, seen = Lanes(make()), []
    for end in lanes.climb(ends, Meter()):
        seen.append(end)
        for fit, weights in zip(lanes.fits, alone, strict=True):
            assert_alike(pack(fit.model), weights[end], worst)
    assert seen == [*alone[0]] and lanes.failed == [""] * len(alone)


@pytest.mark.parametrize("optimizer", [*COUPLED, *DECOUPLED])
def test_every_optimizer_of_lanes_ends_where_it_ends_alone(optimizer: str) -> None:
    assert_lanes_end_as_alone(lambda: fits(2, optimizer=optimizer))


@pytest.mark.parametrize("schedule", ["constant", "step every 2 epochs", "cosine"])
def test_every_schedule_is_that_of_a_fit_alone(schedule: str) -> None:
    assert_lanes_end_as_alone(lambda: fits(2, optimizer="momentum", schedule=schedule, warmup=3))


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_single_precision_keeps_close_for_twenty_steps(optimizer: str) -> None:
    assert_lanes_end_as_alone(
        lambda: fits(2, dtype=torch.float32, optimizer=optimizer, steps=20), ends=(10, 20), worst=WORST32
    )


def test_a_network_with_group_norm() -> None:
    assert_lanes_end_as_alone(lambda: fits(2, GROUPS, size=16), ends=(3,))


def test_rates_of_layers_may_differ_from_lane_to_lane_and_others_stay() -> None:
    def layered() -> list[Fit]:
        found = []
        for lane, fit in enumerate(fits()):
            last, first = [*head(fit.model).parameters()], next(fit.model.parameters())
            groups: list[dict[str, Any]] = [{"params": [first], "lr": 1e-4 * (lane + 1)}, {"params": last}]
            found.append(replace(fit, parameters=groups))
        return found

    assert_lanes_end_as_alone(layered)
    before, lanes = build(SMALL, 10, seed=1).to(DOUBLE), Lanes(layered())
    for _ in lanes.climb(ENDS, Meter()):
        pass
    still = {n for n, p in lanes.fits[1].model.named_parameters() if torch.equal(p, before.get_parameter(n))}
    assert still == {n for n, _ in before.named_parameters()} - {"blocks.0.0.weight", "head.weight", "head.bias"}


def test_what_follows_a_step_works_on_each_lane() -> None:
    def masked() -> list[Fit]:
        def clear(first: nn.Parameter) -> None:
            first.data[0] = 0.0

        return [replace(fit, after_step=partial(clear, next(fit.model.parameters()))) for fit in fits(2)]

    assert_lanes_end_as_alone(masked)
    lanes = Lanes(masked())
    next(lanes.climb(ENDS, Meter()))
    assert all(not next(fit.model.parameters())[0].any() for fit in lanes.fits)


def test_lanes_cost_what_a_fit_alone_costs() -> None:
    _, alone = climbed(fits()[0])
    meter = Meter()
    found = [meter.cost for _ in Lanes(fits()).climb(ENDS, meter)]
    assert [replace(cost, seconds=0.0) for cost in found] == [replace(cost, seconds=0.0) for cost in alone]
    assert found[0].flops > 0 and found[0].seconds > 0 and meter.paid == 10 + 1


def test_a_lane_that_diverges_says_so_as_alone_and_disturbs_nobody() -> None:
    def diverging() -> list[Fit]:
        return [
            replace(fit, training=fit.training.model_copy(update={"lr": 1e4 if lane == 1 else 1e-3}))
            for lane, fit in enumerate(fits(optimizer="sgd", schedule="constant"))
        ]

    with pytest.raises(FloatingPointError) as alone:
        climbed(diverging()[1])
    healthy = [climbed(fit)[0] for fit in diverging()[::2]]
    lanes = Lanes(diverging())
    assert [*lanes.climb(ENDS, Meter())] == [*ENDS]
    said, told = (text.split() for text in (lanes.failed[1], str(alone.value)))
    assert said[:3] == told[:3] == ["the", "loss", "is"] and said[4:] == told[4:]
    assert float(said[3]) == pytest.approx(float(told[3]), rel=1e-3, nan_ok=True)
    assert not lanes.failed[0] and not lanes.failed[2]
    for fit, weights in zip(lanes.fits[::2], healthy, strict=True):
        assert_alike(pack(fit.model), weights[ENDS[-1]])


def test_what_is_not_finite_in_one_lane_stays_there() -> None:
    made = fits(optimizer="adam")
    alone = climbed(fits()[0])[0]
    with torch.no_grad():
        next(made[1].model.parameters()).fill_(torch.nan)
    lanes = Lanes(made)
    assert [*lanes.climb(ENDS, Meter())] == [*ENDS]
    assert lanes.failed == ["", "the loss is nan at step 1", ""]
    assert_alike(pack(lanes.fits[0].model), alone[ENDS[-1]])


def test_outputs_that_are_not_finite_fail_their_lane() -> None:
    lanes = Lanes(fits(schedule="constant"))
    climb = lanes.climb(ENDS, Meter())
    next(climb)
    with torch.no_grad():
        head(lanes.fits[2].model).bias.fill_(torch.inf)
    lanes.correct(held_as(data(seed=9), DOUBLE))
    assert lanes.failed == ["", "", "the model's logits are not finite"]
    lanes.fits[0].model.get_buffer("blocks.0.1.running_var").fill_(torch.inf)
    assert next(climb) == ENDS[1]
    lanes.correct(held_as(data(seed=9), DOUBLE))
    assert lanes.failed == ["", "", "the model's logits are not finite"], "a lane that answers goes on"


def test_all_lanes_are_scored_at_once_as_each_is_alone() -> None:
    lanes, others = Lanes(fits()), held_as(data(450, seed=9), DOUBLE)
    next(lanes.climb(ENDS, Meter()))
    found = lanes.correct(others)
    assert found.dtype == torch.bool and found.shape == (3, 450)
    for row, fit in zip(found, lanes.fits, strict=True):
        assert int((row != correct(fit.model, others)).sum()) <= 2
        assert 0 < int(row.sum()) < 450
    assert all(fit.model.training for fit in lanes.fits)


def test_what_may_differ_between_lanes_is_not_in_their_key() -> None:
    keys = {lane_key(fit) for fit in fits()}
    assert len(keys) == 1 and None not in keys


def test_fits_of_different_kinds_have_different_keys() -> None:
    (fit,) = fits(1)
    others = [
        fits(1, optimizer="sgd")[0],
        fits(1, batch_size=8)[0],
        fits(1, steps=7)[0],
        fits(1, schedule="constant")[0],
        fits(1, Arch(name="cnn_bn"))[0],
        fits(1, size=16)[0],
        replace(fit, data=held_as(data(40), DOUBLE)),
        replace(fit, parameters=[*head(fit.model).parameters()]),
    ]
    assert len({lane_key(other) for other in (fit, *others)}) == 9


class Coin(nn.Module):
    """A network that looks at its values."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(192, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.flatten(1))
        return y if y.sum() > 0 else -y


class Noisy(Split):
    """Samples with batches of their own."""


def dropping() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Dropout(0.5), nn.Linear(16, 10))


ALONE: dict[str, Callable[[Fit], Fit]] = {
    "a loss": lambda fit: replace(fit, loss=lambda x, y: x.sum()),
    "an outcome": lambda fit: replace(fit, outcome=lambda: fit.model),
    "samples": lambda fit: replace(fit, data=Noisy(fit.data.held, fit.data.y)),
    "an objective": lambda fit: replace(fit, data=replace(fit.data, objective=Denoising())),
    "muon": lambda fit: replace(fit, training=fit.training.model_copy(update={"optimizer": "muon"})),
    "lamb": lambda fit: replace(fit, training=fit.training.model_copy(update={"optimizer": "lamb"})),
    "a group's momentum": lambda fit: replace(fit, parameters=[{"params": [*fit.model.parameters()], "momentum": 0.5}]),
    "parameters once": lambda fit: replace(fit, parameters=iter([*fit.model.parameters()])),
    "parameters elsewhere": lambda fit: replace(fit, parameters=[nn.Parameter(torch.zeros(1))]),
    "nothing to train": lambda fit: replace(fit, parameters=[]),
    "dropout": lambda fit: replace(fit, model=dropping().double()),
    "values in the way": lambda fit: replace(fit, model=Coin().double()),
}


@pytest.mark.parametrize("change", [*ALONE])
def test_what_lanes_cannot_do_trains_alone(change: str) -> None:
    (fit,) = fits(1)
    assert lane_key(fit) is not None
    assert lane_key(ALONE[change](fit)) is None


def test_parameters_that_can_be_listed_once_are_left_whole() -> None:
    (fit,) = fits(1)
    once = replace(fit, parameters=iter([*fit.model.parameters()]))
    assert lane_key(once) is None and len([*(once.parameters or ())]) == 11
