"""What an attack gets, may spend and is scored on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from ntbench.engine.bench import Bench
from ntbench.engine.runner import Runner
from ntbench.engine.view import _encoders, view_of
from ntbench.learn.models import BlackBox, Head, build, encoded, head, reset_head, unpack
from ntbench.method import Access, Attack, Context, Defense
from ntbench.registry import Registry
from ntbench.types import Arch, Budget, Cell

Cells = Callable[..., list[Cell]]
SEEN: list[tuple[nn.Module, Context]] = []
ANSWERS: list[torch.Tensor] = []


class Watching(Attack):
    name = "watching"
    access: ClassVar[Access] = Access()

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        SEEN.append((model, ctx))
        for _ in range(ctx.budget.steps):
            yield model


class Validating(Watching):
    name = "validating"
    access: ClassVar[Access] = Access(validation=True)


class Threefold(Watching):
    name = "threefold"

    @property
    def times(self) -> int:
        return 3


class Asking(Attack):
    """Asks the black box and hands it back."""

    name = "asking"
    access: ClassVar[Access] = Access(weights=False)

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        assert ctx.target
        SEEN.append((model, ctx))
        ANSWERS.append(model(ctx.target.x[:4]))
        yield model


class Choosing(Attack):
    name = "choosing"
    stop: int = 4

    def attack(self, model: nn.Module, ctx: Context) -> Generator[nn.Module, None, str]:
        for _ in range(self.stop):
            yield model
        return "the second door"


class Exploding(Attack):
    name = "exploding"

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        yield model
        next(model.parameters()).data.fill_(torch.inf)
        for _ in range(ctx.budget.steps - 1):
            yield model


class Greedy(Defense):
    name = "greedy"
    needs_target = True


@pytest.fixture(autouse=True)
def registered(own_registry: Registry) -> None:
    for method in (Watching, Validating, Threefold, Asking, Choosing, Exploding):
        own_registry.register(method)
    SEEN.clear()
    _encoders.clear()


def test_validation_data_come_to_those_who_ask(runner: Runner, cells: Cells) -> None:
    for name, granted in (("watching", False), ("validating", True)):
        cell = cells("none", name)[0]
        runner.run(cell)
        val = SEEN[-1][1].target_val
        assert (val is not None) == granted
        if val:
            assert torch.equal(val.x, Bench(cell, runner.device, runner.cache).target.val.x)


def test_a_budget_is_as_many_times_the_suites_as_the_attack_says(runner: Runner, cells: Cells) -> None:
    cell = cells("none", "threefold")[0]
    result = runner.run(cell)
    assert cell.budget == Budget(steps=4, samples=32, scored=(1, 4))
    assert SEEN[-1][1].budget == Budget(steps=12, samples=96, scored=(3, 12))
    assert result.trajectory.step == (3, 12)


def test_a_black_box_answers_and_holds_nothing(runner: Runner, cells: Cells) -> None:
    assert runner.run(cells("none", "asking")[0]).status == "ok"
    box, ctx = SEEN[-1]
    assert isinstance(box, BlackBox) and not list(box.parameters()) and not box.state_dict() and ctx.target
    x = ctx.target.x[:4].clone().requires_grad_()
    answer = box.train()(x)
    weights, _ = runner.protected(cells("none", "asking")[0])
    model = unpack(weights, build(Arch(name="cnns_bn"), 10, 0)).eval()
    assert torch.equal(answer, model(x)) and not answer.requires_grad


@pytest.mark.parametrize(("stop", "steps"), [(4, (1, 4)), (2, (1, 2)), (1, (1,)), (9, (1, 4))])
def test_where_an_attack_ends_it_is_scored_and_says_what_it_chose(
    runner: Runner, cells: Cells, stop: int, steps: tuple[int, ...]
) -> None:
    result = runner.run(cells("none", "choosing", attack_params={"stop": stop})[0])
    assert result.trajectory.step == steps
    assert result.choice == ("the second door" if stop <= 4 else "")


def test_weights_that_are_not_finite_are_a_divergence(runner: Runner, cells: Cells) -> None:
    result = runner.run(cells("none", "exploding")[0])
    assert result.status == "diverged" and "are not finite at step 4" in result.error
    assert result.trajectory.step == (1,)


def test_a_cell_that_an_attack_refuses_says_why(runner: Runner, cells: Cells) -> None:
    result = runner.run(cells("none", "finetune", attack_params={"mask": "keep", "batch_size": 8})[0])
    assert (result.status, result.error) == ("inapplicable", "none releases no mask to keep")
    assert not result.trajectory.step and result.protection is None


def test_without_target_labels_other_classes_are_refused() -> None:
    blind = type("Blind", (Watching,), {"access": Access(target="unlabelled")})()
    assert blind.refuses(Greedy(), 10, 10) == ""
    assert "10 source classes cannot become 7" in blind.refuses(Greedy(), 10, 7)
    assert Watching().refuses(Greedy(), 10, 7) == ""


def test_needs_are_told_in_words(runner: Runner, cells: Cells) -> None:
    assert Greedy.needs() == "source labels, target images"
    for defense, words in (
        ("none", "nothing"),
        ("magnitude", "source labels"),
        ("ntl", "source labels, target labels"),
    ):
        params = {} if defense == "none" else {"steps": 1} if defense == "ntl" else {"tune_steps": 1}
        tolerance = {} if defense == "none" else {"tolerance": 1}
        _, facts = runner.protected(cells(defense, defense_params=params | tolerance)[0])
        assert facts.needs == words


def head_only(**params: Any) -> dict[str, Any]:
    return {"scope": "head", "batch_size": 8, "optimizer": "adam", "lr": 0.01, **params}


@pytest.mark.parametrize("init", ["keep", "reinit"])
def test_training_a_head_on_features_is_training_it_behind_a_frozen_encoder(
    runner: Runner, cells: Cells, init: str
) -> None:
    cell = cells("none", "finetune", attack_params=head_only(init=init))[1]
    result = runner.run(cell)
    bench = Bench(cell, runner.device, runner.cache)
    model = unpack(runner.protected(cell)[0], build(cell.arch, 10, 0)).eval()
    view = view_of(Watching(), model, [bench.subset, bench.target.val, bench.target.test], ("", 0))
    ctx = bench._attacker(Watching(), view)
    if init == "reinit":
        reset_head(model, 10, ctx.generator("head"))
    optimizer = torch.optim.Adam(head(model).parameters(), lr=0.01)
    for step, (x, y) in zip(range(4), bench.subset.batches(8, ctx.generator("batches")), strict=False):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / 4)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    agree = (model(bench.target.test.x).argmax(1) == bench.target.test.y).float().mean()
    assert result.trajectory.test[-1] == pytest.approx(float(agree), abs=0.01)
    encoder = 4 * result.trajectory.flops[0]
    assert result.trajectory.flops[-1] < encoder, "features are paid for once"


def test_features_are_encoded_once_for_all_heads_of_a_released_model(
    runner: Runner, cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counting(model: nn.Module, x: torch.Tensor, batch: int = 200) -> torch.Tensor:
        calls.append(len(x))
        return encoded(model, x, batch)

    monkeypatch.setattr("ntbench.engine.view.encoded", counting)
    costs = [
        runner.run(cell).trajectory.flops
        for lr in (0.1, 0.01)
        for cell in cells("none", "finetune", attack_params=head_only(lr=lr))
    ]
    assert len(calls) == 4, "two subsets, validation and test data"
    assert costs[:2] == costs[2:], "what was remembered is paid for all the same"


def test_a_head_is_a_model_of_features() -> None:
    layer = nn.Linear(8, 3)
    model, x = Head(layer), torch.randn(5, 8)
    assert head(model) is layer and torch.equal(model(x), layer(x))
    assert torch.equal(model.forward_head(model.forward_features(x), pre_logits=True), x)
    model.reset_classifier(7)
    assert model(x).shape == (5, 7)


def test_low_precision_computes_in_bfloat16_and_keeps_float32_weights(runner: Runner, cells: Cells) -> None:
    plain = cells("none", "asking")[0]
    for cell, dtype in ((plain, torch.float32), (plain.model_copy(update={"precision": "bfloat16"}), torch.bfloat16)):
        assert runner.run(cell).status == "ok" and ANSWERS[-1].dtype == dtype
        weights, _ = runner.protected(cell)
        assert {w.dtype for w in weights.values()} == {torch.float32, torch.int64}
    assert not torch.is_autocast_enabled("cpu")


def test_a_domain_is_cut_with_its_class_proportions(cells: Cells, runner: Runner) -> None:
    cell = cells()[0]
    task = cell.task.model_copy(update={"train_samples": 200, "scored_samples": 50})
    small, whole = (Bench(c, runner.device, runner.cache) for c in (cell.model_copy(update={"task": task}), cell))
    assert [len(s) for s in (small.target.train, small.target.val, small.target.test)] == [200, 50, 50]
    assert len(small.subset) == round(0.2 * 200) and small.target.train.y.bincount().min() >= 18
    assert small.target.digests == whole.target.digests
    rows = {x.numpy().tobytes() for x in whole.target.test.x}
    assert {x.numpy().tobytes() for x in small.target.test.x} <= rows
    assert whole.target.train.x.shape[0] > 1000
