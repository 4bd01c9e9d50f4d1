from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from ntbench import method
from ntbench.method import Access, Attack, Context, Defense, Field, Fit, Optimizer, Schedule, Split
from ntbench.types import Training


class Sample(Defense):
    name = "sample"
    version = 3
    optimizer: Optimizer = "adam"
    schedule: Schedule = "constant"
    steps: int = Field(default=5, ge=1)


def context(seed: int = 4, target: Split | None = None, steps: int = 3) -> Context:
    return Context(
        source=None,
        target=target,
        source_val=None,
        target_val=None,
        target_classes=10,
        steps=steps,
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
    assert not Idle().respects_mask and not Idle().is_one_fit and Idle().fit_of(nn.Identity(), context()) is None
    assert Idle.access == Access(source=False, target="labelled", weights=True)


@pytest.mark.parametrize(
    ("access", "track"),
    [
        (Access(), "target"),
        (Access(pool=True), "semi-supervised"),
        (Access(source=True, pool=True), "source"),
        (Access(target="unlabelled"), "unlabelled"),
        (Access(target=None), "unlabelled"),
        (Access(source=True), "source"),
        (Access(source=True, target="unlabelled"), "source"),
        (Access(source=True, target=None), "source"),
        (Access(weights=False), "queries"),
        (Access(source=True, weights=False), "queries"),
        (Access(target="unlabelled", weights=False), "queries"),
    ],
)
def test_the_track_follows_from_what_an_attack_asks_for(access: Access, track: str) -> None:
    assert access.track == track


class Plain(Attack):
    name = "plain"
    lr: float = 0.1

    def fit_of(self, model: nn.Module, ctx: Context) -> Fit:
        assert ctx.target is not None
        training = Training(optimizer="sgd", lr=self.lr, steps=ctx.steps, batch_size=4)
        return Fit(model, ctx.target, training, ctx.generator("batches"))


class Own(Plain):
    name = "own"

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        yield model


def test_an_attack_of_one_fit_yields_after_every_step_of_it() -> None:
    data = Split(torch.arange(24.0).view(8, 3), torch.arange(8) % 2)
    models = [nn.Linear(3, 2), nn.Linear(3, 2)]
    models[1].load_state_dict(models[0].state_dict())
    yielded = list(Plain().attack(models[0], context(target=data)))
    assert len(yielded) == 3 and all(model is models[0] for model in yielded)
    for _ in Plain().fit_of(models[1], context(target=data)).run():
        pass
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
    assert Plain().is_one_fit and not Own().is_one_fit, "a loop of its own counts"


class Blind(Attack):
    name = "blind"
    access: ClassVar[Access] = Access(target="unlabelled")


class Keeping(Attack):
    name = "keeping"

    @property
    def respects_mask(self) -> bool:
        return True


class Masked(Sample):
    masked: ClassVar[bool] = True


def test_attacks_refuse_what_they_cannot_face() -> None:
    assert Keeping().refuses(Sample(), 10, 10) == "sample releases no mask to keep"
    assert Keeping().refuses(Masked(), 10, 7) == ""
    assert Blind().refuses(Sample(), 10, 10) == ""
    assert Blind().refuses(Sample(), 10, 7) == "without target labels the 10 source classes cannot become 7 others"


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({}, "source labels"),
        ({"needs_source": False}, "nothing"),
        ({"needs_target": True}, "source labels, target images"),
        ({"needs_target": True, "needs_target_labels": True}, "source labels, target labels"),
    ],
)
def test_what_a_defense_needs_is_told_in_words(needs: dict[str, bool], words: str) -> None:
    needy: Any = type("Needy", (Sample,), needs)
    assert needy.needs() == words


@pytest.mark.parametrize(
    ("access", "words"),
    [
        (Access(), "target labels"),
        (Access(source=True, target="unlabelled"), "source labels, target images"),
        (Access(target=None), ""),
        (Access(weights=False), "target labels, answers of a black box"),
    ],
)
def test_what_an_attack_needs_is_told_in_words(access: Access, words: str) -> None:
    asking: Any = type("Asking", (Attack,), {"access": access})
    assert asking.needs() == words


def test_everything_that_is_offered_is_there() -> None:
    assert sorted(method.__all__) == method.__all__
    assert [name for name in method.__all__ if not hasattr(method, name)] == []
