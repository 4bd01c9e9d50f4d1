from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.engine.runner import Runner
from ntbench.learn.models import build
from ntbench.method import Attack, Context, Defense, Fit, UnusableError, create_optimizer, descend
from ntbench.method import Training as Recipe
from ntbench.registry import Registry
from ntbench.types import Arch, Cell

CPU = torch.device("cpu")
Cells = Callable[..., list[Cell]]


class Training(Attack):
    """Trains in a loop of its own; how it misbehaves is a parameter."""

    name = "training"
    steps_a_yield: int = 1
    end: str = ""
    after: int = 2

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        assert ctx.target is not None
        optimizer = create_optimizer(model.parameters(), "sgd", 0.01)
        batches = ctx.target.batches(8, ctx.generator("batches"))
        model.train()
        for step in range(1, ctx.steps + 1):
            for _ in range(self.steps_a_yield):
                x, y = next(batches)
                descend(optimizer, F.cross_entropy(model(x), y), step)
            if step > self.after:
                self._misbehave(step)
            yield model

    def _misbehave(self, step: int) -> None:
        if self.end == "diverge":
            raise FloatingPointError(f"the loss is nan at step {step}")
        if self.end == "expire":
            signal.raise_signal(signal.SIGALRM)  # what the clock of its time limit would do
        if self.end == "exit":
            sys.exit(7)
        if self.end == "raise":
            raise KeyError("boom")


class Fitting(Attack):
    """One fit whose loss is lost after so many calls; each of its cooldowns calls it too."""

    name = "fitting"
    lost: int = 4

    def fit_of(self, model: nn.Module, ctx: Context) -> Fit:
        calls: list[int] = []

        def loss(logits: Tensor, labels: Tensor) -> Tensor:
            calls.append(1)
            return F.cross_entropy(logits, labels) * (float("nan") if len(calls) == self.lost else 1.0)

        assert ctx.target is not None
        recipe = Recipe(optimizer="sgd", lr=0.01, schedule="cooldown", steps=ctx.steps, batch_size=8)
        return Fit(model, ctx.target, recipe, ctx.generator("batches"), loss=loss)


class Idle(Attack):
    name = "idle"

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        yield from ()


class BadDefense(Defense):
    """Releases what it must not; how is a parameter."""

    name = "bad_defense"
    how: str

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        with torch.no_grad():
            if self.how == "nan":
                next(model.parameters())[0] = float("nan")
        if self.how == "arch":
            return build(Arch(name="cnn_bn"), 10, 0)
        if self.how == "double":
            return model.double()
        if self.how == "raise":
            raise RuntimeError("no luck")
        if self.how == "expire":
            signal.raise_signal(signal.SIGALRM)
        if self.how == "exit":
            sys.exit(7)
        if self.how == "unusable":
            raise UnusableError("the source accuracy falls by 0.2; raise `alpha`")
        if self.how == "nothing":
            return None  # type: ignore[return-value]
        return model


@pytest.fixture(autouse=True)
def registered(own_registry: Registry) -> None:
    for method in (Training, Fitting, Idle, BadDefense):
        own_registry.register(method)


def test_an_attack_over_its_budget_is_an_error(runner: Runner, cells: Cells) -> None:
    result = runner.run(cells(attack="training", attack_params={"steps_a_yield": 2})[0])
    assert result.status == "error" and "over budget: 2 optimizer steps at yield 1 of 1" in result.error


def test_an_attack_that_yields_nothing_is_an_error(runner: Runner, cells: Cells) -> None:
    result = runner.run(cells(attack="idle")[0])
    assert result.status == "error" and "the attack yields no model" in result.error


@pytest.mark.parametrize(
    ("end", "status", "reason"),
    [
        ("diverge", "diverged", "the loss is nan at step 3"),
        ("expire", "timeout", "took longer than 600 seconds"),
        ("exit", "error", "called exit(7)"),
        ("raise", "error", "KeyError: 'boom'"),
    ],
)
def test_an_attack_that_ends_badly_keeps_its_reason_and_what_was_measured(
    runner: Runner, cells: Cells, end: str, status: str, reason: str
) -> None:
    cell = cells(attack="training", attack_params={"end": end})[0]
    result = runner.run(cell)
    assert (result.status, result.error.splitlines()[0]) == (status, reason)
    assert result.trajectory.step == (1, 2) and len(result.trajectory.test) == len(result.trajectory.correct) == 2
    assert result.provenance and result.images and result.paid == 1 + 2


@pytest.mark.parametrize(("lost", "kept"), [(1, ()), (2, (1,)), (4, (1, 2)), (6, (1, 2)), (7, (1, 2, 4))])
def test_a_climb_that_diverges_keeps_the_budgets_below(
    runner: Runner, cells: Cells, lost: int, kept: tuple[int, ...]
) -> None:
    """Budgets of 1, 2 and 4 steps take 1, 2 and 3 calls of the loss: the trunk goes on from each fork."""
    result = runner.run(cells(attack="fitting", attack_params={"lost": lost})[0])
    assert result.trajectory.step == kept
    assert result.status == ("ok" if lost == 7 else "diverged")
    assert ("the loss is nan" in result.error) == (lost < 7)


@pytest.mark.parametrize(
    ("how", "status", "reason"),
    [
        ("nan", "diverged", "'blocks.0.0.weight' are not finite"),
        ("arch", "error", r"'blocks.0.0.weight' are (32, 3, 3, 3)"),
        ("double", "error", "torch.float64, the architecture has"),
        ("nothing", "error", "AttributeError"),
        ("raise", "error", "RuntimeError: no luck"),
        ("unusable", "unusable", "the source accuracy falls by 0.2; raise `alpha`"),
        ("expire", "timeout", "took longer than 600 seconds"),
        ("exit", "error", "called exit(7)"),
    ],
)
def test_a_failed_protection_is_the_reason_of_all_its_cells_and_is_not_tried_again(
    runner: Runner, cells: Cells, how: str, status: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    protect: Callable[..., nn.Module] = BadDefense.protect

    def counted(*given: Any) -> nn.Module:
        made.append("x")
        return protect(*given)

    monkeypatch.setattr(BadDefense, "protect", counted)
    results = [runner.run(cell) for cell in cells("bad_defense", defense_params={"how": how})]
    assert made == ["x"]
    for result in results:
        assert result.status == status
        assert result.error.startswith("protection failed: ") and reason in result.error
        assert result.protection and result.protection.source_before is not None
        assert result.protection.source_after is None and result.trajectory.step == ()
        assert result.provenance and result.images


def test_what_a_failed_pretraining_says(runner: Runner, cells: Cells) -> None:
    training = cells()[0].pretrain.model_copy(update={"optimizer": "sgd", "lr": 1e30})
    cell = cells()[0].model_copy(update={"pretrain": training})
    result = runner.run(Cell.model_validate(cell.model_dump()))
    assert result.status == "diverged" and "the loss is" in result.error
    assert result.protection and result.protection.source_before is None
