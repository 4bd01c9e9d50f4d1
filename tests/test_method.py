from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from ntbench import method
from ntbench.method import Access, Attack, Context, Defense, Field, Optimizer, Schedule
from ntbench.types import Budget


class Sample(Defense):
    name = "sample"
    version = 3
    optimizer: Optimizer = "adam"
    schedule: Schedule = "constant"
    steps: int = Field(default=5, ge=1)


def context(seed: int = 4) -> Context:
    return Context(
        source=None,
        target=None,
        source_val=None,
        target_val=None,
        target_classes=10,
        budget=Budget(steps=1, samples=1, scored=(1,)),
        seed=seed,
        device=torch.device("cpu"),
        fresh=lambda classes: nn.Identity(),
    )


def test_a_spec_has_every_hyper_parameter_the_version_and_the_code() -> None:
    spec = Sample(steps=7).spec("my row")
    assert spec.params == {"optimizer": "adam", "schedule": "constant", "steps": 7}
    assert (spec.kind, spec.name, spec.version, spec.label) == ("defense", "sample", 3, "my row")
    assert spec.code == hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    assert Sample().spec().label == "sample"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"step": 5}, "Extra inputs are not permitted"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"optimizer": "adamm"}, "unknown optimizer 'adamm'; did you mean 'adam"),
        ({"schedule": "linea"}, "unknown schedule 'linea'; did you mean 'linear'"),
    ],
)
def test_wrong_hyper_parameters_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Sample(**params)


def test_hyper_parameters_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Sample().steps = 1  # type: ignore[misc]


def test_generators_depend_on_the_seed_and_the_names_alone() -> None:
    def draw(seed: int, *names: str) -> list[float]:
        return torch.rand(4, generator=context(seed).generator(*names)).tolist()

    torch.manual_seed(0)
    first = draw(4, "batches")
    torch.manual_seed(1)
    assert draw(4, "batches") == first
    others = [draw(5, "batches"), draw(4, "head"), draw(4, "batches", "x"), draw(4), draw(4, "batchesx")]
    assert len({tuple(numbers) for numbers in [first, *others]}) == 6


def test_methods_that_do_nothing_say_so() -> None:
    class Idle(Attack):
        name = "idle"

    with pytest.raises(NotImplementedError, match=r"Sample\.protect"):
        Sample().protect(nn.Identity(), context())
    with pytest.raises(NotImplementedError, match=r"Idle\.attack"):
        Idle().attack(nn.Identity(), context())
    assert not Idle().respects_mask and Idle.access == Access(source=False, target="labelled")


def test_everything_that_is_offered_is_there() -> None:
    assert sorted(method.__all__) == method.__all__
    assert [name for name in method.__all__ if not hasattr(method, name)] == []
