"""What a defender may tune: ranges around defaults that follow from a field's type and bounds, or what a class says."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from optuna import create_study
from optuna.samplers import RandomSampler
from optuna.trial import FixedTrial

from ntbench.engine.declared import described
from ntbench.engine.foreign import Door
from ntbench.engine.space import space_of
from ntbench.errors import UserError
from ntbench.method import Defense, Field
from ntbench.registry import registry


class Many(Defense):
    """One field of every kind."""

    name = "many"

    lr: float = Field(default=2e-3, gt=0)
    near: float = Field(default=2.0, ge=1.5, lt=1000)
    sparsity: float = Field(default=0.98, gt=0, lt=1)
    chance: float = Field(default=0.0, ge=0, le=1)
    open: float = Field(default=0.0, ge=0)
    steps: int = Field(default=100, ge=1)
    loss: str = "ice"
    tolerance: float = Field(default=0.015, ge=0, le=1)


def with_space(**space: Any) -> type[Defense]:
    class Said(Many):
        space: ClassVar[dict[str, Any]] = {}

    Said.space = space
    return Said


def test_ranges_follow_from_defaults_and_bounds() -> None:
    axes = {name: (axis.scale, axis.low, axis.high) for name, axis in space_of(Many).items()}
    # Odds of 49, sixteen times as much and as little.
    odds = pytest.approx(49 / 16 / (1 + 49 / 16)), pytest.approx(49 * 16 / (1 + 49 * 16))
    assert axes == {
        "lr": ("log", pytest.approx(5e-4), pytest.approx(8e-3)),
        "near": ("log", 1.5, 8.0),
        "sparsity": ("odds", *odds),
        "chance": ("linear", 0.0, 1.0),
    }


def test_a_class_says_otherwise() -> None:
    axes = space_of(with_space(lr=None, sparsity=(0.9, 0.99), steps=(50, 200), loss=["ice", "klu"]))
    assert axes.keys() == {"near", "sparsity", "chance", "steps", "loss"}
    assert (axes["sparsity"].scale, axes["sparsity"].low, axes["sparsity"].high) == ("odds", 0.9, 0.99)
    assert axes["loss"].suggested(FixedTrial({"loss": 1}), "loss") == "klu"
    assert axes["steps"].suggested(FixedTrial({"steps": axes["steps"].start + 0.01}), "steps") == 101


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({"sparsty": None}, "unknown field in the space of 'many': 'sparsty'; did you mean 'sparsity'?"),
        ({"sparsity": (0.5, 0.9)}, "leaves out its default 0.98; add it"),
        ({"loss": ["klu"]}, r"loss = \['klu'\] leaves out its default 'ice'; add it"),
    ],
)
def test_a_space_that_does_not_fit_its_fields_is_refused(space: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        space_of(with_space(**space))


@pytest.mark.parametrize("name", registry.names("defense"))
def test_defaults_come_back_as_they_are_and_every_draw_is_allowed(name: str) -> None:
    cls = registry.get("defense", name)
    axes = space_of(cls)
    start = FixedTrial({field: axis.start for field, axis in axes.items()})
    assert {f: axis.suggested(start, f) for f, axis in axes.items()} == {f: axis.default for f, axis in axes.items()}
    trial = create_study(sampler=RandomSampler(seed=0)).ask()
    drawn = {field: axis.suggested(trial, field) for field, axis in axes.items()}
    if drawn:
        assert cls(**drawn).model_dump().items() >= drawn.items()


@pytest.mark.parametrize("name", ["magnitude", "ntl", "ntp", "sophon"])
def test_rates_are_searched_and_what_protecting_takes_is_not(name: str) -> None:
    axes = space_of(registry.get("defense", name))
    assert axes["lr"].scale == "log"
    assert not axes.keys() & {"steps", "loops", "iterations", "batch_size", "tune_steps", "tolerance"}


@pytest.mark.parametrize("name", ["none", "scratch"])
def test_controls_without_fields_have_nothing_to_tune(name: str) -> None:
    assert space_of(registry.get("defense", name)) == {}


def test_foreign_code_tells_its_space_as_plain_values() -> None:
    stand_in = Door().stand_in(described(with_space(loss=["ice", "klu"])))
    assert space_of(stand_in) == space_of(with_space(loss=["ice", "klu"]))
