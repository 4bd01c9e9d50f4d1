"""What an attack gets and is scored on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from ntbench.engine.bench import Bench
from ntbench.engine.runner import Runner
from ntbench.engine.shares import HELD_OUT
from ntbench.engine.view import _encoders, view_of
from ntbench.learn.models import BlackBox, Head, build, encoded, head, pack, reset_head, unpack, write_weights
from ntbench.learn.scoring import accuracy
from ntbench.method import Access, Attack, Context, Defense
from ntbench.registry import Registry
from ntbench.types import Arch, Cell, Epochs, Training, unpack_bits

Cells = Callable[..., list[Cell]]
SEEN: list[tuple[nn.Module, Context]] = []
ANSWERS: list[torch.Tensor] = []


class Watching(Attack):
    name = "watching"
    access: ClassVar[Access] = Access()

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        SEEN.append((model, ctx))
        for _ in range(ctx.steps):
            yield model


class Gathering(Watching):
    """Holds, without labels, what attackers' samples are drawn from."""

    name = "gathering"
    access: ClassVar[Access] = Access(pool=True)


class Reaching(Gathering):
    """Wants of images what it gets of features."""

    name = "reaching"

    @property
    def on_features(self) -> bool:
        return True


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
    at_horizon_alone: ClassVar[bool] = True
    stop: int = 4

    def attack(self, model: nn.Module, ctx: Context) -> Generator[nn.Module, None, str]:
        for _ in range(self.stop):
            yield model
        return "the second door"


class Exploding(Attack):
    """Loses its weights at budgets from 4 steps on."""

    name = "exploding"

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        if ctx.steps >= 4:
            next(model.parameters()).data.fill_(torch.inf)
        for _ in range(ctx.steps):
            yield model


class Overflowing(Attack):
    """Hands over a model that answers, with a statistic that is not finite."""

    name = "overflowing"

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        model.get_buffer("blocks.0.1.running_var").fill_(torch.inf)
        for _ in range(ctx.steps):
            yield model


class Brittle(Defense):
    """Releases a channel without a weight whose statistic overflows as soon as somebody trains."""

    name = "brittle"

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        with torch.no_grad():
            model.get_parameter("blocks.0.0.weight")[0] = 1e25
            model.get_parameter("blocks.0.1.weight")[0] = 0
        model.get_buffer("blocks.0.1.running_var")[0] = 3e38
        return model


class Wide(Attack):
    """Hands over a model whose logits have a trailing dimension."""

    name = "wide"

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        class Trailing(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return model(x)[:, :, None].expand(-1, -1, 20)  # type: ignore[no-any-return]

        yield Trailing()


class Greedy(Defense):
    name = "greedy"
    needs_target = True


@pytest.fixture(autouse=True)
def registered(own_registry: Registry) -> None:
    for method in (Watching, Gathering, Reaching, Asking, Choosing, Exploding, Overflowing, Brittle, Wide, Greedy):
        own_registry.register(method)
    SEEN.clear()
    _encoders.clear()


def test_no_attacker_owns_validation_data(runner: Runner, cells: Cells) -> None:
    for cell in (cells("none", "watching")[1], own(cells("none", "watching")[1])):
        runner.run(cell)
        ctx = SEEN[-1][1]
        assert ctx.target_val is None and ctx.source_val is None and ctx.target


def test_who_asks_for_the_pool_gets_it_without_labels_and_nobody_else_does(runner: Runner, cells: Cells) -> None:
    result = runner.run(cells("none", "gathering")[0])
    bench = Bench(result.cell, runner.device, runner.cache)
    ctx = SEEN[-1][1]
    assert result.track == "semi-supervised" and ctx.unlabelled and ctx.target
    assert torch.equal(ctx.unlabelled.x, bench.shares.pool.x) and (ctx.unlabelled.y == -1).all()
    assert len(ctx.target) == result.cell.samples < len(ctx.unlabelled) and (ctx.target.y >= 0).all()
    runner.run(cells("none", "watching")[0])
    assert SEEN[-1][1].unlabelled is None


def own(cell: Cell, samples: int = 120) -> Cell:
    """Return the cell of an attacker who chooses by a fifth of its samples."""
    return cell.model_copy(update={"knowledge": "own", "samples": samples})


def test_a_cell_of_a_second_order_optimizer_has_scores(runner: Runner, cells: Cells) -> None:
    pytest.importorskip("opt_einsum")
    result = runner.run(cells("none", "finetune", attack_params={"optimizer": "kron", "batch_size": 8})[0])
    assert (result.status, result.error) == ("ok", "") and len(result.trajectory.test) == len(result.cell.budget.ends)


def test_a_run_is_told_its_budget(runner: Runner, cells: Cells) -> None:
    result = runner.run(cells("none", "watching")[0])
    assert [ctx.steps for _, ctx in SEEN] == [1, 2, 4] == list(result.trajectory.step)


def test_who_chooses_by_its_own_samples_trains_on_the_rest_and_is_scored_on_them(runner: Runner, cells: Cells) -> None:
    cell = own(cells("none", "watching")[1])
    result = runner.run(cell)
    bench = Bench(cell, runner.device, runner.cache)
    ctx = SEEN[-1][1]
    held = bench.shares.held_out
    assert ctx.target and held and len(ctx.target) == 120 - round(HELD_OUT * 120) and len(held) == 24
    model = unpack(runner.protected(cell)[0], build(cell.arch, 10, 0))
    assert result.trajectory.own == (accuracy(model, held),) * 3
    assert runner.run(cells("none", "watching")[1]).trajectory.own == (None,) * 3


def test_with_too_few_samples_of_its_own_a_cell_does_not_apply(runner: Runner, cells: Cells) -> None:
    result = runner.run(own(cells("none", "watching")[0], samples=12))
    assert (result.status, result.protection) == ("inapplicable", None)
    assert result.error == "a fifth of 12 samples is under 2 a class: nothing to choose by"


def test_a_black_box_answers_and_holds_nothing(runner: Runner, cells: Cells) -> None:
    assert runner.run(cells("none", "asking")[0]).status == "ok"
    box, ctx = SEEN[-1]
    assert isinstance(box, BlackBox) and not list(box.parameters()) and not box.state_dict() and ctx.target
    x = ctx.target.x[:4].clone().requires_grad_()
    answer = box.train()(x)
    weights, _ = runner.protected(cells("none", "asking")[0])
    model = unpack(weights, build(Arch(name="cnns_bn"), 10, 0)).eval()
    assert torch.equal(answer, model(x)) and not answer.requires_grad


@pytest.mark.parametrize("stop", [4, 2, 1])
def test_where_an_attack_ends_it_is_scored_and_says_what_it_chose(runner: Runner, cells: Cells, stop: int) -> None:
    result = runner.run(cells("none", "choosing", attack_params={"stop": stop})[0])
    assert result.trajectory.step == (4,) and result.choice == "the second door"


def test_a_yield_beyond_the_budget_is_an_error(runner: Runner, cells: Cells) -> None:
    result = runner.run(cells("none", "choosing", attack_params={"stop": 9})[0])
    assert result.status == "error" and "over budget: 0 optimizer steps at yield 5 of 4" in result.error


def test_what_answers_is_scored_whatever_its_weights_hold(runner: Runner, cells: Cells) -> None:
    assert runner.run(cells("none", "overflowing")[0]).status == "ok"


def test_a_release_that_no_training_survives_is_none(runner: Runner, cells: Cells) -> None:
    result = runner.run(cells("brittle", "watching")[0])
    assert result.status == "error" and not result.trajectory.step
    assert "cannot be trained on: weights 'blocks.0.1.running_var' are not finite after one pass" in result.error


def test_weights_that_are_not_finite_are_a_divergence(runner: Runner, cells: Cells) -> None:
    result = runner.run(cells("none", "exploding")[0])
    assert result.status == "diverged" and "are not finite at step 4" in result.error
    assert result.trajectory.step == (1, 2) and len(result.trajectory.correct) == 2


def test_logits_of_another_shape_are_an_error_and_no_score(runner: Runner, cells: Cells) -> None:
    result = runner.run(cells("none", "wide")[0])
    assert result.status == "error" and result.trajectory.step == ()
    assert "the model answers 197 images with Tensor (197, 10, 20), not [n, classes]" in result.error


def test_the_images_that_were_right_are_kept_one_by_one(runner: Runner, cells: Cells) -> None:
    cell = cells("none", "watching")[0]
    result = runner.run(cell)
    bench = Bench(cell, runner.device, runner.cache)
    weights, facts = runner.protected(cell)
    model = unpack(weights, build(cell.arch, 10, 0)).eval()
    for bits, split, count in (
        (result.trajectory.correct[-1], bench.shares.target.test, result.images),
        (facts.kept, bench.shares.source.test, result.source_images),
        (facts.clean, bench.shares.source.test, result.source_images),
    ):
        right = (model(split.x).argmax(1) == split.y).numpy()
        assert count == len(split) and np.array_equal(unpack_bits(bits, count), right)
    assert result.trajectory.test[-1] == unpack_bits(result.trajectory.correct[-1], result.images).mean()
    assert (result.images, result.originals) == (1200, 400), "image i shows original i modulo originals"


def test_a_cell_that_an_attack_refuses_says_why(runner: Runner, cells: Cells) -> None:
    result = runner.run(cells("none", "finetune", attack_params={"mask": "keep", "batch_size": 8})[0])
    assert (result.status, result.error) == ("inapplicable", "none releases no mask to keep")
    assert not result.trajectory.step and result.protection is None


def test_an_attack_on_features_gets_those_of_its_samples_alone(runner: Runner, cells: Cells) -> None:
    result = runner.run(cells("none", "reaching")[0])
    assert result.status == "inapplicable" and "must name weights and no more" in result.error


def test_a_defense_that_needs_a_target_does_not_apply_where_nobody_is_defended(runner: Runner, cells: Cells) -> None:
    for defense, status in (("greedy", "inapplicable"), ("none", "ok")):
        cell = cells(defense, "watching")[0]
        result = runner.run(cell.model_copy(update={"task": cell.task.model_copy(update={"defended": ()})}))
        assert result.status == status
    result = runner.run(cells("greedy", "watching")[0])
    assert result.status == "error", "it protects nothing, which is told where somebody is defended"


def test_published_weights_reach_the_start_of_pretraining_alone(runner: Runner, cells: Cells, tmp_path: Path) -> None:
    """Whatever `arch.params` or `pretrain.weights` hold, scratch starts at random."""
    file = tmp_path / "published.safetensors"
    write_weights(file, pack(build(Arch(name="test_resnet"), 10, seed=77)), "{}")
    plain = cells("scratch", "watching")[0].model_copy(update={"arch": Arch(name="test_resnet")})
    still = plain.pretrain.model_copy(update={"steps": 1, "optimizer": "sgd", "lr": 1e-30})
    planted = Arch(name="test_resnet", params={"checkpoint_path": str(file)})
    cases = [
        plain.model_copy(update={"pretrain": still}),
        plain.model_copy(update={"pretrain": still.model_copy(update={"weights": str(file)})}),
        plain.model_copy(update={"pretrain": still, "arch": planted}),
    ]
    begun, scratch = [], []
    for cell in cases:
        weights, _ = Bench(cell, runner.device, runner.cache).pretrained()
        begun.append(weights["conv1.0.weight"])
        scratch.append(runner.protected(cell)[0]["conv1.0.weight"])
        ctx = Bench(cell, runner.device, runner.cache)._defenders(weights).context(0)
        assert torch.equal(ctx.fresh(10).state_dict()["conv1.0.weight"], scratch[-1])
    theirs = build(Arch(name="test_resnet"), 10, seed=77).state_dict()["conv1.0.weight"]
    assert [torch.equal(found, theirs) for found in begun] == [False, True, True]
    assert all(not torch.equal(found, theirs) for found in scratch)


def test_public_weights_of_timm_come_untrained_beside_the_data(
    runner: Runner, cells: Cells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").mkdir()
    theirs = pack(build(Arch(name="test_resnet"), 10, seed=77))
    write_weights(tmp_path / "weights" / "test_resnet.safetensors", theirs, "{}")
    monkeypatch.setenv("NTBENCH_DATA", str(tmp_path))
    public, scratch = (
        cells(name, "watching", defense_params=params)[0].model_copy(update={"arch": Arch(name="test_resnet")})
        for name, params in (("public", {"weights": "timm"}), ("scratch", {}))
    )
    assert public.start == Training(weights="timm", trained=False) and scratch.start == scratch.pretrain
    assert public.pretrain_key != scratch.pretrain_key
    released = runner.protected(public)[0]
    names = [name for name in theirs if not torch.equal(released[name], theirs[name])]
    assert names == ["fc.weight", "fc.bias"], "timm's head has another number of classes"


def test_needs_are_told_in_words(runner: Runner, cells: Cells) -> None:
    pruning = {"iterations": 1, "steps": 1, "tune_steps": 1, "tolerance": 1}
    for defense, params, words in (
        ("none", {}, "nothing"),
        ("magnitude", pruning, "source labels"),
        ("ntl", {"steps": 1, "tolerance": 1}, "source labels, target labels"),
    ):
        _, facts = runner.protected(cells(defense, defense_params=params)[0])
        assert facts.needs == words


def head_only(**params: Any) -> dict[str, Any]:
    return {"scope": "head", "batch_size": 8, "optimizer": "adam", "lr": 0.01, "schedule": "linear", **params}


@pytest.mark.parametrize("init", ["keep", "reinit"])
def test_training_a_head_on_features_is_training_it_behind_a_frozen_encoder(
    runner: Runner, cells: Cells, init: str
) -> None:
    cell = cells("none", "finetune", attack_params=head_only(init=init))[1]
    result = runner.run(cell)
    bench = Bench(cell, runner.device, runner.cache)
    model = unpack(runner.protected(cell)[0], build(cell.arch, 10, 0)).eval()
    shares = bench.shares
    view = view_of(bench.attack, model, [shares.subset, shares.target.val, shares.target.test, None], ("", ""))
    ctx = bench._attackers(view, {}).context(4)
    if init == "reinit":
        reset_head(model, 10, ctx.generator("head"))
    optimizer = torch.optim.Adam(head(model).parameters(), lr=0.01)
    for step, (x, y) in zip(range(4), shares.subset.batches(8, ctx.generator("batches")), strict=False):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / 4)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    agree = (model(shares.target.test.x).argmax(1) == shares.target.test.y).float().mean()
    assert result.trajectory.test[-1] == pytest.approx(float(agree), abs=0.01)
    assert result.trajectory.step == (4,) and result.trajectory.samples == (48 + 4 * 8,)


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
    assert sorted(calls) == [12, 12, 48, 48, 197, 1200], "validation and test data once, what is paid for every time"
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


@pytest.mark.parametrize("attack", [{}, {"scope": "head"}])
def test_low_scoring_changes_validation_scores_alone(runner: Runner, cells: Cells, attack: dict[str, str]) -> None:
    exact = own(cells("none", "finetune", attack_params={"batch_size": 8, "lr": 0.01} | attack)[1])
    one, other = (runner.run(exact.model_copy(update={"scoring": name})) for name in ("float32", "bfloat16"))
    assert one.status == other.status == "ok" and one.cell.key != other.cell.key
    run, again = one.trajectory, other.trajectory
    assert (run.step, run.test, run.correct, run.flops) == (again.step, again.test, again.correct, again.flops)
    assert run.val == pytest.approx(again.val, abs=0.02)
    assert run.own == pytest.approx(again.own, abs=0.05)


@pytest.mark.parametrize(("patience", "scored"), [(0, 9), (3, 4), (1, 2)])
def test_a_protocol_scores_every_pass_until_its_patience_is_over(
    runner: Runner, cells: Cells, patience: int, scored: int
) -> None:
    # A model that never changes is at its best after the first pass.
    budget = Epochs(epochs=9, each=2, select="best test", patience=patience)
    cell = cells("none", "watching")[0].model_copy(update={"budget": budget})
    assert runner.run(cell).trajectory.step == tuple(2 * k for k in range(1, scored + 1))
