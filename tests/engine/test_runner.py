from __future__ import annotations

import dataclasses
import importlib.metadata
import random
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.engine.bench import Bench
from ntbench.engine.runner import Runner
from ntbench.engine.store import Store
from ntbench.learn.models import build, unpack
from ntbench.method import Access, Attack, Context, Defense
from ntbench.registry import Registry
from ntbench.suite import Limits
from ntbench.tasks.data import Split, load_domain
from ntbench.types import Arch, Cell, Result, digest

CPU = torch.device("cpu")
Cells = Callable[..., list[Cell]]
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
        for _ in range(ctx.steps):
            yield model


class BlindAttack(SpyAttack):
    name = "blind_attack"
    access: ClassVar[Access] = Access(target="unlabelled")


class SourceAttack(SpyAttack):
    name = "source_attack"
    access: ClassVar[Access] = Access(source=True, target=None)


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
            (state.manual_seed if state is torch else state.seed)(0)
        return model


class Broken(Defense):
    name = "broken"

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        random.random(), np.random.rand(), torch.rand(())
        raise RuntimeError("no luck")


class Drawing(Defense):
    """Uses all three global random states."""

    name = "drawing"

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        noise = random.random() + float(np.random.rand()) + float(torch.rand(()))
        with torch.no_grad():
            next(model.parameters()).add_(noise / 100)
        return model


METHODS: list[type[Any]] = [SpyDefense, BlindDefense, SourceDefense, Broken, Hooked, Vandal, Drawing]
METHODS += [SpyAttack, BlindAttack, SourceAttack]
METHODS_BY_NAME = {method.name: method for method in METHODS}


@pytest.fixture(autouse=True)
def registered(own_registry: Registry) -> None:
    for method in METHODS:
        own_registry.register(method)
    SEEN.clear()


def rows(split: Split | None) -> set[bytes]:
    return set() if split is None else {x.numpy().tobytes() for x in split.x}


@pytest.mark.parametrize("defense", ["spy_defense", "blind_defense", "source_defense"])
@pytest.mark.parametrize("attack", ["spy_attack", "blind_attack", "source_attack"])
def test_no_test_data_reach_a_method_and_labels_only_where_they_are_granted(
    runner: Runner, cells: Cells, cache: Path, defense: str, attack: str
) -> None:
    cell = cells(defense, attack)[0]
    result = runner.run(cell)
    assert (result.status, result.track) == ("ok", METHODS_BY_NAME[attack].access.track)
    source, target = (load_domain(name, 8, cache) for name in ("digits", "digits_m"))
    defender, *attackers = SEEN
    assert [ctx.steps for ctx in SEEN] == [0, 1, 2, 4]
    attacker = attackers[-1]
    hidden = rows(source.test) | rows(target.test)
    for ctx in SEEN:
        values = [getattr(ctx, field.name) for field in dataclasses.fields(ctx)]
        splits = [value for value in values if isinstance(value, Split)]
        assert not any(isinstance(value, (Tensor, nn.Module)) for value in values)
        assert splits and not any(rows(split) & hidden for split in splits)
    assert defender.source and torch.equal(defender.source.x, source.train.x)
    assert defender.source_val and torch.equal(defender.source_val.y, source.val.y)
    assert (defender.target is None) == (defense == "source_defense")
    if defender.target and defender.target_val:
        labelled = defense == "spy_defense"
        assert rows(defender.target) < rows(target.train) and rows(defender.target_val) < rows(target.train)
        assert all(bool((split.y == -1).all()) != labelled for split in (defender.target, defender.target_val))
    for ctx in attackers:
        assert ctx.source_val is None and ctx.target_val is None
        assert (ctx.source is None) == (attack == "blind_attack")
        assert (ctx.target is None) == (attack == "source_attack")
        assert not ctx.source or len(ctx.source) == round(0.1 * len(source.train))
    if attacker.target:
        assert rows(attacker.target) <= rows(target.train) and len(attacker.target) == 12
        assert bool((attacker.target.y == -1).all()) == (attack == "blind_attack")
        defended = rows(defender.target) | rows(defender.target_val)
        assert not rows(attacker.target) & defended, "nobody holds another one's images"


def test_subsets_are_the_same_for_every_method(runner: Runner, cells: Cells) -> None:
    for defense, attack in (("none", "spy_attack"), ("none", "blind_attack"), ("spy_defense", "spy_attack")):
        for cell in cells(defense, attack):
            runner.run(cell)
    targets = [ctx.target for ctx in SEEN if ctx.steps]
    small, large = ({frozenset(rows(split)) for split in targets if split and len(split) == n} for n in (12, 48))
    assert len(small) == len(large) == 1 and small.pop() < large.pop()


def test_scores_are_those_of_an_independent_computation(runner: Runner, cells: Cells, cache: Path) -> None:
    params = {"batch_size": 8, "schedule": "constant"}
    cell = cells("none", "finetune", attack_params=params)[0]
    result = runner.run(cell)
    weights, facts = runner.protected(cell)
    source, target = (load_domain(name, 8, cache) for name in ("digits", "digits_m"))

    def score(model: nn.Module, split: Split) -> float:
        with torch.no_grad():
            return float(accuracy_score(split.y.numpy(), model.eval()(split.x).argmax(1).numpy()))

    model = unpack(weights, build(Arch(name="cnns_bn"), 10, 0))
    assert facts.source_before == facts.source_after == score(model, source.test)
    assert facts.zero_shot == score(model, target.test)

    bench = Bench(cell, CPU, cache)
    seed = bench.shares.seed("attack")
    generator = torch.Generator().manual_seed(int(digest([seed, "batches"]), 16) % 2**63)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for x, y in islice(bench.shares.subset.batches(8, generator), 4):
        optimizer.zero_grad()
        F.cross_entropy(model.train()(x), y).backward()
        optimizer.step()
    run = result.trajectory
    assert run.step == (1, 2, 4) and run.samples == (8, 16, 32)
    assert (run.val[-1], run.test[-1]) == (score(model, target.val), score(model, target.test))
    assert run.flops == tuple(step * run.flops[0] for step in run.step) and run.flops[0] > 0
    assert 0 < run.seconds[0] < run.seconds[1] < run.seconds[2] < result.seconds
    assert result.paid == 4, "a constant rate needs no branch"


def test_a_result_does_not_depend_on_what_ran_before(tmp_path: Path, cache: Path, cells: Cells) -> None:
    def run(name: str, warm: bool) -> Result:
        runner = Runner(Store(tmp_path / name), CPU, Limits(), cache)
        if warm:
            random.seed(1), np.random.seed(1), torch.manual_seed(1)
            for other in cells("vandal"):
                assert runner.run(other).status == "ok"
        return runner.run(cells("drawing", "finetune")[1])

    first, second = run("cold", warm=False), run("warm", warm=True)
    assert first.protection and second.protection and first.status == second.status == "ok"
    assert first.trajectory.correct == second.trajectory.correct
    assert first.trajectory.val == second.trajectory.val
    assert first.protection.source_after == second.protection.source_after


def test_tasks_of_one_source_share_pretrained_weights_whichever_comes_first(cells: Cells, cache: Path) -> None:
    cell = cells()[0]
    other = cell.model_copy(update={"task": cell.task.model_copy(update={"target": "syn"})})
    assert other.pretrain_key == cell.pretrain_key and other.protect_key != cell.protect_key
    first, second = (Bench(c, CPU, cache).pretrained()[0] for c in (cell, other))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_global_random_states_stand_as_before(runner: Runner, cells: Cells) -> None:
    def states() -> tuple[Any, Any, Any]:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index]

    before = states()
    for defense in ("drawing", "broken"):
        runner.run(cells(defense)[0])
    assert states() == before


def test_nothing_but_weights_crosses_from_the_defender(runner: Runner, cells: Cells) -> None:
    hooked, plain = (runner.run(cells(name, "finetune")[0]) for name in ("hooked", "none"))
    assert hooked.status == "ok"
    assert hooked.protection and plain.protection
    assert hooked.protection.source_after == plain.protection.source_after == plain.protection.source_before
    assert hooked.trajectory.test == plain.trajectory.test
    assert hooked.trajectory.flops == plain.trajectory.flops


def test_pretraining_and_protecting_are_computed_once(
    runner: Runner, cells: Cells, monkeypatch: pytest.MonkeyPatch
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
        for cell in cells(defense, "finetune"):
            runner.run(cell)
    assert made == ["pretrained", "protected", "protected"]


def test_where_the_numbers_come_from(runner: Runner, cells: Cells, cache: Path) -> None:
    provenance = runner.run(cells()[0]).provenance
    assert provenance
    target = load_domain("digits_m", 8, cache)
    assert {f"digits_m/{part}": value for part, value in target.digests.items()}.items() <= provenance.data.items()
    assert provenance.data.keys() == {f"{d}/{p}" for d in ("digits", "digits_m") for p in ("train", "val", "test")}
    assert provenance.versions["torch"] == importlib.metadata.version("torch")
    assert provenance.device == "cpu"


def test_sparsity_counts_the_zeros_of_weights(runner: Runner, cells: Cells) -> None:
    params = {"sparsity": 0.9, "iterations": 1, "steps": 2, "tune_steps": 2, "tolerance": 1}
    _, facts = runner.protected(cells("magnitude", defense_params=params)[0])
    model = build(Arch(name="cnns_bn"), 10, 0)
    total = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    encoder = total - 10 * 256
    assert facts.sparsity == pytest.approx(round(0.9 * encoder) / total, abs=1e-6)
