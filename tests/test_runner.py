from __future__ import annotations

import dataclasses
import importlib.metadata
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.data import Split, load_domain, nested_subset
from ntbench.method import Access, Attack, Context, Defense, create_optimizer, descend
from ntbench.models import build, unpack
from ntbench.plan import plan
from ntbench.registry import registry
from ntbench.runner import Bench, Runner
from ntbench.store import Store
from ntbench.suite import AttackEntry, DefenseEntry, Limits, PaperSetting, Suite
from ntbench.types import Arch, Cell, Result

CPU = torch.device("cpu")
SEEN: list[Context] = []


class SpyDefense(Defense):
    name = "spy_defense"
    needs_target = True
    needs_target_labels: ClassVar[bool] = True

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        SEEN.append(ctx)
        return model


class BlindDefense(SpyDefense):
    name = "blind_defense"
    needs_target_labels: ClassVar[bool] = False


class SourceDefense(SpyDefense):
    name = "source_defense"
    needs_target = False


class SpyAttack(Attack):
    name = "spy_attack"
    access: ClassVar[Access] = Access(source=True)

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        SEEN.append(ctx)
        for _ in range(ctx.budget.steps):
            yield model


class BlindAttack(SpyAttack):
    name = "blind_attack"
    access: ClassVar[Access] = Access(target="unlabelled")


class SourceAttack(SpyAttack):
    name = "source_attack"
    access: ClassVar[Access] = Access(source=True, target=None)


class Training(Attack):
    """Trains on whole batches of 8; how it misbehaves is a parameter."""

    name = "training"
    steps_a_yield: int = 1
    batch: int = 8
    end: str = ""
    after: int = 2

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        assert ctx.target is not None
        optimizer = create_optimizer(model.parameters(), "sgd", 0.01)
        batches = ctx.target.batches(self.batch, ctx.generator("batches"))
        model.train()
        for step in range(1, ctx.budget.steps + 1):
            for _ in range(self.steps_a_yield):
                x, y = next(batches)
                descend(optimizer, F.cross_entropy(model(x), y), step)
            if step > self.after:
                self._misbehave(step)
            yield model

    def _misbehave(self, step: int) -> None:
        if self.end == "diverge":
            raise FloatingPointError(f"the loss is nan at step {step}")
        if self.end == "sleep":
            time.sleep(60)
        if self.end == "exit":
            sys.exit(7)
        if self.end == "raise":
            raise KeyError("boom")


class Short(SpyAttack):
    name = "short"

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        yield model


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
        if self.how == "sleep":
            time.sleep(60)
        if self.how == "exit":
            sys.exit(7)
        if self.how == "nothing":
            return None  # type: ignore[return-value]
        return model


def reversing(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return -output


class Hooked(Defense):
    name = "hooked"

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        model.register_forward_hook(reversing)
        model.requires_grad_(False)
        model.eval()
        model.forward = lambda x: -x
        return model


class Vandal(Defense):
    """Writes into everything that it is given, and leaves the global random states elsewhere."""

    name = "vandal"
    needs_target = True

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        assert ctx.source and ctx.target and ctx.source_val
        for split in (ctx.source, ctx.target, ctx.source_val):
            split.x.zero_()
            split.y.zero_()
        for state in (torch, random, np.random):
            (state.manual_seed if state is torch else state.seed)(0)  # type: ignore[attr-defined]
        return model


class Drawing(Defense):
    """Uses all three global random states."""

    name = "drawing"

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        noise = random.random() + float(np.random.rand()) + float(torch.rand(()))
        with torch.no_grad():
            next(model.parameters()).add_(noise / 100)
        return model


METHODS: list[type[Any]] = [SpyDefense, BlindDefense, SourceDefense, BadDefense, Hooked, Vandal, Drawing]
METHODS += [SpyAttack, BlindAttack, SourceAttack, Training, Short]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.discover()
    # Other tests go over all registered methods and must not meet these.
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    for method in METHODS:
        registry.register(method)
    SEEN.clear()


@pytest.fixture
def runner(tmp_path: Path, cache: Path) -> Runner:
    return Runner(Store(tmp_path / "run"), CPU, Limits(cell_seconds=30, protect_seconds=30), cache)


def cells(suite: Suite, defense: str = "none", attack: str = "training", **params: dict[str, Any]) -> list[Cell]:
    usual = {"batch_size": 8} if attack == "finetune" else {}
    return plan(
        suite.model_copy(
            update={
                "defenses": (DefenseEntry(name=defense, params=params.get("defense_params", {})),),
                "attacks": (AttackEntry(name=attack, params=params.get("attack_params", usual)),),
                "paper": PaperSetting(attack=attack),
            }
        )
    )


def rows(split: Split | None) -> set[bytes]:
    return set() if split is None else {x.numpy().tobytes() for x in split.x}


@pytest.mark.parametrize("defense", ["spy_defense", "blind_defense", "source_defense"])
@pytest.mark.parametrize("attack", ["spy_attack", "blind_attack", "source_attack"])
def test_no_test_data_reach_a_method_and_labels_only_where_they_are_granted(
    runner: Runner, tiny: Suite, cache: Path, defense: str, attack: str
) -> None:
    cell = cells(tiny, defense, attack)[0]
    assert runner.run(cell).status == "ok"
    source, target = (load_domain(name, 8, cache) for name in ("digits", "digits_m"))
    defender, attacker = SEEN
    hidden = rows(source.test) | rows(target.test)
    for ctx in SEEN:
        values = [getattr(ctx, field.name) for field in dataclasses.fields(ctx)]
        splits = [value for value in values if isinstance(value, Split)]
        assert not any(isinstance(value, (Tensor, nn.Module)) for value in values)
        assert splits and not any(rows(split) & hidden for split in splits)
    assert defender.source and torch.equal(defender.source.x, source.train.x)
    assert defender.source_val and torch.equal(defender.source_val.y, source.val.y)
    assert (defender.target is None) == (defense == "source_defense")
    if defender.target:
        labelled = defense == "spy_defense"
        assert torch.equal(defender.target.x, target.train.x)
        assert torch.equal(defender.target.y, target.train.y if labelled else torch.full_like(target.train.y, -1))
    assert attacker.source_val is None
    assert (attacker.source is None) == (attack == "blind_attack")
    assert (attacker.target is None) == (attack == "source_attack")
    if attacker.target:
        assert rows(attacker.target) <= rows(target.train) and len(attacker.target) == round(0.2 * len(target.train))
        assert bool((attacker.target.y == -1).all()) == (attack == "blind_attack")


def test_subsets_are_nested_and_the_same_for_every_method(runner: Runner, tiny: Suite) -> None:
    for defense, attack in (("none", "spy_attack"), ("none", "blind_attack"), ("spy_defense", "spy_attack")):
        for cell in cells(tiny, defense, attack):
            runner.run(cell)
    targets = [ctx.target for ctx in SEEN if ctx.source_val is None]
    small, large = targets[::2], targets[1::2]
    assert len({frozenset(rows(split)) for split in small}) == 1
    assert all(rows(a) < rows(b) for a, b in zip(small, large, strict=True))


def test_scores_are_those_of_an_independent_computation(runner: Runner, tiny: Suite, cache: Path) -> None:
    cell = cells(tiny, "none", "finetune")[0]
    result = runner.run(cell)
    weights, facts = runner.protected(cell)
    source, target = (load_domain(name, 8, cache) for name in ("digits", "digits_m"))

    def score(model: nn.Module, split: Split) -> float:
        with torch.no_grad():
            return float(accuracy_score(split.y.numpy(), model.eval()(split.x).argmax(1).numpy()))

    model = unpack(weights, build(tiny.arch, 10, 0))
    assert facts.source_before == facts.source_after == score(model, source.test)
    assert facts.zero_shot == score(model, target.test)

    bench = Bench(cell, CPU, cache)
    subset = nested_subset(target.train, 0.2, torch.Generator().manual_seed(bench._seed("subset")))
    generator = bench._attacker(Access()).generator("batches")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    val, test = [], []
    for step, (x, y) in zip(range(1, 5), subset.batches(8, generator), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (1 - (step - 1) / 4)
        optimizer.zero_grad()
        F.cross_entropy(model.train()(x), y).backward()
        optimizer.step()
        if step in (1, 4):
            val.append(score(model, target.val))
            test.append(score(model, target.test))
    assert result.trajectory.step == (1, 4)
    assert result.trajectory.samples == (8, 32)
    assert result.trajectory.val == tuple(val)
    assert result.trajectory.test == tuple(test)
    assert result.samples == len(subset)
    flops = result.trajectory.flops
    assert flops[1] == 4 * flops[0] > 0
    assert 0 < result.trajectory.seconds[0] < result.trajectory.seconds[1] < result.seconds


def test_a_result_does_not_depend_on_what_ran_before(tmp_path: Path, cache: Path, tiny: Suite) -> None:
    def run(name: str, warm: bool) -> Result:
        runner = Runner(Store(tmp_path / name), CPU, Limits(), cache)
        if warm:
            random.seed(1), np.random.seed(1), torch.manual_seed(1)
            for other in cells(tiny, "vandal"):
                assert runner.run(other).status == "ok"
        return runner.run(cells(tiny, "drawing", "finetune")[1])

    first, second = run("cold", warm=False), run("warm", warm=True)
    assert first.protection and second.protection and first.status == second.status == "ok"
    assert first.trajectory.test == second.trajectory.test
    assert first.trajectory.val == second.trajectory.val
    assert first.protection.source_after == second.protection.source_after


def test_the_global_random_states_stand_as_before(runner: Runner, tiny: Suite) -> None:
    def states() -> tuple[Any, Any, Any]:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index]

    before = states()
    for defense, attack in (("drawing", "finetune"), ("bad_defense", "finetune")):
        runner.run(cells(tiny, defense, attack, defense_params={"how": "raise"} if defense[0] == "b" else {})[0])
    assert states() == before


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"steps_a_yield": 2}, "over budget: 2 optimizer steps and 16 training samples at yield 1"),
        ({"batch": 17}, "over budget: 2 optimizer steps and 34 training samples at yield 2"),
    ],
)
def test_an_attack_over_its_budget_is_an_error(
    runner: Runner, tiny: Suite, params: dict[str, Any], reason: str
) -> None:
    result = runner.run(cells(tiny, attack_params=params)[0])
    assert result.status == "error" and reason in result.error


@pytest.mark.parametrize(
    ("end", "status", "reason"),
    [
        ("diverge", "diverged", "the loss is nan at step 3"),
        ("sleep", "timeout", "took longer than 2 seconds"),
        ("exit", "error", "called exit(7)"),
        ("raise", "error", "KeyError: 'boom'"),
    ],
)
def test_an_attack_that_ends_badly_keeps_its_reason_and_what_was_measured(
    runner: Runner, tiny: Suite, end: str, status: str, reason: str
) -> None:
    limited = dataclasses.replace(runner, limits=Limits(cell_seconds=2))
    result = limited.run(cells(tiny, attack_params={"end": end})[0])
    assert (result.status, result.error.splitlines()[0]) == (status, reason)
    assert result.trajectory.step == (1,) and len(result.trajectory.test) == 1
    assert result.provenance and result.samples


def test_an_attack_may_stop_early(runner: Runner, tiny: Suite) -> None:
    result = runner.run(cells(tiny, attack="short")[0])
    assert result.status == "ok" and result.trajectory.step == (1,)


@pytest.mark.parametrize(
    ("how", "status", "reason"),
    [
        ("nan", "diverged", "'blocks.0.0.weight' are not finite"),
        ("arch", "error", r"'blocks.0.0.weight' are (32, 3, 3, 3)"),
        ("double", "error", "torch.float64, the architecture has"),
        ("nothing", "error", "AttributeError"),
        ("raise", "error", "RuntimeError: no luck"),
        ("sleep", "timeout", "took longer than 1 seconds"),
        ("exit", "error", "called exit(7)"),
    ],
)
def test_a_failed_protection_is_the_reason_of_all_its_cells_and_is_not_tried_again(
    runner: Runner, tiny: Suite, how: str, status: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = dataclasses.replace(runner, limits=Limits(protect_seconds=1))
    made: list[str] = []
    protect: Callable[..., nn.Module] = BadDefense.protect

    def counted(*given: Any) -> nn.Module:
        made.append("x")
        return protect(*given)

    monkeypatch.setattr(BadDefense, "protect", counted)
    results = [limited.run(cell) for cell in cells(tiny, "bad_defense", defense_params={"how": how})]
    assert made == ["x"]
    for result in results:
        assert result.status == status
        assert result.error.startswith("protection failed: ") and reason in result.error
        assert result.protection and result.protection.source_before is not None
        assert result.protection.source_after is None and result.trajectory.step == ()
        assert result.provenance and result.samples


def test_nothing_but_weights_crosses_from_the_defender(runner: Runner, tiny: Suite) -> None:
    hooked, plain = (runner.run(cells(tiny, name, "finetune")[0]) for name in ("hooked", "none"))
    assert hooked.status == "ok"
    assert hooked.protection and plain.protection
    assert hooked.protection.source_after == plain.protection.source_after == plain.protection.source_before
    assert hooked.trajectory.test == plain.trajectory.test
    assert hooked.trajectory.flops == plain.trajectory.flops


def test_pretraining_and_protecting_are_computed_once(
    runner: Runner, tiny: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        compute = getattr(Bench, name)

        def call(*given: Any) -> Any:
            made.append(name)
            return compute(*given)

        return call

    for name in ("pretrained", "protected"):
        monkeypatch.setattr(Bench, name, counted(name))
    for defense in ("none", "drawing"):
        for cell in cells(tiny, defense, "finetune"):
            runner.run(cell)
    assert made == ["pretrained", "protected", "protected"]


def test_what_a_failed_pretraining_says(runner: Runner, tiny: Suite) -> None:
    training = tiny.pretrain.model_copy(update={"optimizer": "sgd", "lr": 1e30})
    cell = cells(tiny)[0].model_copy(update={"pretrain": training})
    result = runner.run(Cell.model_validate(cell.model_dump()))
    assert result.status == "diverged" and "the loss is" in result.error
    assert result.protection and result.protection.source_before is None


def test_where_the_numbers_come_from(runner: Runner, tiny: Suite, cache: Path) -> None:
    provenance = runner.run(cells(tiny)[0]).provenance
    assert provenance
    target = load_domain("digits_m", 8, cache)
    assert {f"digits_m/{part}": value for part, value in target.digests.items()}.items() <= provenance.data.items()
    assert provenance.data.keys() == {f"{d}/{p}" for d in ("digits", "digits_m") for p in ("train", "val", "test")}
    assert provenance.versions["torch"] == importlib.metadata.version("torch")
    assert provenance.device == "cpu"


def test_sparsity_counts_the_zeros_of_weights(runner: Runner, tiny: Suite) -> None:
    params = {"sparsity": 0.9, "tune_steps": 2}
    _, facts = runner.protected(cells(tiny, "magnitude", defense_params=params)[0])
    model = build(tiny.arch, 10, 0)
    total = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    encoder = total - 10 * 256
    assert facts.sparsity == pytest.approx(round(0.9 * encoder) / total, abs=1e-6)
