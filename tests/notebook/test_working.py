"""Protecting and attacking in process: what the engine's own parts say of the same model, data and recipe."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from toys import domain

import ntbench
from ntbench.errors import UserError
from ntbench.learn.models import build, head, pack
from ntbench.learn.scoring import accuracy
from ntbench.method import Attack, Defense
from ntbench.notebook.memory import declared, split
from ntbench.registry import registry
from ntbench.tasks.data import Split
from ntbench.types import Arch, unpack_bits

CNN = Arch(name="cnns_bn")
SOURCE, TARGET, TEST = domain(3, seed=1, count=60), domain(3, seed=2, count=60, shift=0.4), domain(3, seed=3, count=45)


def data(held: Split) -> tuple[Tensor, Tensor]:
    return held.x, held.y


def model() -> nn.Module:
    return build(CNN, 3, seed=5)


class Shifting(Defense):
    """Adds to the bias of the head, by what it was granted."""

    name = "shifting"
    needs_target = True
    by: float = 1.0

    def protect(self, model: nn.Module, ctx: Any) -> nn.Module:
        assert len(ctx.source.y) == 48 and len(ctx.source_val.y) == 12 and len(ctx.target.y) == 36
        assert (ctx.target.y == -1).all()
        head(model).bias.data += self.by
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        optimizer.step()
        return model


@pytest.fixture(autouse=True)
def shifting(own_registry: Any) -> None:
    own_registry.register(Shifting)


def test_a_model_is_protected_and_stays_as_it_is() -> None:
    given = model()
    before = copy.deepcopy(given.state_dict())
    done = ntbench.protect(Shifting(by=2.0), given, source=data(SOURCE), source_test=data(TEST), target=data(TARGET))
    assert all(torch.equal(before[name], tensor) for name, tensor in given.state_dict().items())
    after = done.model.state_dict()
    assert torch.equal(after["head.bias"], before["head.bias"] + 2)
    assert all(torch.equal(after[name], before[name]) for name in before if name != "head.bias")
    assert done.facts.source_before == accuracy(given, TEST) and done.facts.source_after == accuracy(done.model, TEST)
    assert (done.facts.protect_steps, done.defense.params) == (1, {"by": 2.0})
    assert "shifting" in repr(done) and "1 steps" in repr(done)


def test_a_defense_goes_by_name_with_settings_and_repeats() -> None:
    settings: dict[str, Any] = {"source": data(SOURCE), "target": TensorDataset(*data(TARGET)), "progress": False}
    one, other = (ntbench.protect("ntl", model(), **settings, steps=2, head_steps=1, refits=1) for _ in range(2))
    for name, tensor in pack(one.model).items():
        assert torch.equal(tensor, pack(other.model)[name]), name
    assert not torch.equal(pack(one.model)["head.weight"], pack(model())["head.weight"])


@pytest.fixture(scope="module")
def run() -> Any:
    clean = build(CNN, 3, seed=6)
    settings: dict[str, Any] = {"samples": (6, 24), "seeds": 1, "steps": 8, "attacks": ["finetune"], "progress": False}
    tests: dict[str, Any] = {"source_test": data(TEST), "target_test": data(TEST)}
    return ntbench.attack(model(), source=data(SOURCE), target=data(TARGET), undefended=clean, **tests, **settings)


def test_an_attack_is_a_run_of_release_scratch_and_clean_model(run: Any) -> None:
    assert run.failures().empty and len(run.results()) == 3 * 2
    board = run.leaderboard().set_index("defense")
    assert set(board.index) == {"none", "scratch", "release"} and set(board["attack"]) == {"finetune"}
    expected = accuracy(build(CNN, 3, seed=6), TEST) - accuracy(model(), TEST)
    assert board.loc["release", "drop"] == pytest.approx(expected)
    curves = run.curves().pivot_table(index="samples", columns="defense", values="worst")
    gaps = (curves["release"] - curves["scratch"]).to_numpy()
    assert board.loc["release", "slc"] == pytest.approx(ntbench.slc_auc([6, 24], gaps, [0, 0]))
    assert run.plot.learning_curves("release").axes


def test_the_attacked_weights_are_the_given_ones_and_scratch_is_fresh(run: Any) -> None:
    rows = [r for r in run.cells if r.cell.samples == 24]
    sources = {r.cell.defense.label: r.protection.kept for r in rows}
    right = unpack_bits(sources["release"], len(TEST))
    assert right.mean() == accuracy(model(), TEST)
    assert sources["none"] == rows[0].protection.clean and len({*sources.values()}) == 3
    assert all(r.images == len(TEST) and r.trajectory.step[-1] == 8 for r in rows)


def test_without_t90_there_is_no_verdict(run: Any) -> None:
    assert run.verdict("release").verdict == "none"
    gates = run.gates().set_index(["defense", "gate"])
    assert "T90 and the plateau at 6 samples are not measured" in gates.loc[("release", "horizon"), "reason"]


def test_t90_is_measured_where_no_steps_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ntbench.engine.calibrate.GUESS", 1.0)
    monkeypatch.setattr("ntbench.engine.calibrate.LONGEST", 1.0)
    few: dict[str, Any] = {"samples": (6, 24), "seeds": 1, "attacks": ["finetune"], "progress": False}
    run = ntbench.attack(model(), source=data(SOURCE), target=data(TARGET), **few)
    levels = run.suite.tasks[0].levels
    assert all(level.t90 and level.plateau for level in levels)
    assert set(run.results()["seed"]) == {0} and np.isfinite(run.leaderboard()["uplift"]).all()


def test_fresh_models_are_drawn_anew_and_depend_on_their_seed() -> None:
    given = model()
    one, same, other = (build(declared(given), 4, seed) for seed in (0, 0, 1))
    assert head(one).out_features == 4
    names = [name for name, tensor in pack(one).items() if tensor.ndim > 1]
    assert all(torch.equal(pack(one)[name], pack(same)[name]) for name in names)
    for other_model in (other, given):
        held = pack(other_model)
        assert all(not torch.equal(pack(one)[name], held[name]) for name in names if name != "head.weight")
    assert torch.equal(pack(one)["blocks.0.1.running_var"], torch.ones(16))


def vit() -> Any:
    return timm.create_model("test_vit", num_classes=3, img_size=16, patch_size=4)


def test_what_nothing_draws_anew_needs_its_architecture() -> None:
    with pytest.raises(UserError, match=r"nothing draws '(cls_token|pos_embed)' of VisionTransformer anew; .* arch="):
        declared(vit())
    named = Arch(name="test_vit", params={"img_size": 16, "patch_size": 4})
    assert declared(vit(), named) == named
    with pytest.raises(UserError, match=r"the model is no test_vit with \{\}"):
        declared(vit(), "test_vit")


GOOD: dict[str, Any] = {"source": data(SOURCE), "target": data(TARGET), "progress": False}
MISTAKES: dict[str, tuple[Any, str]] = {
    "whole images": (
        lambda: split("source", (SOURCE.x.to(torch.uint8), SOURCE.y)),
        "images are torch.uint8; give floats",
    ),
    "labels of another length": (lambda: split("source", (SOURCE.x, SOURCE.y[:-1])), r"give \[n, c, s, s\] and \[n\]"),
    "labels that are no numbers": (
        lambda: split("source", (SOURCE.x, SOURCE.y.float())),
        "labels must be whole numbers",
    ),
    "negative labels": (lambda: split("source", (SOURCE.x, SOURCE.y - 1)), "labels must be whole numbers from 0 on"),
    "no pairs": (lambda: split("source", TensorDataset(SOURCE.x)), "source: its items are no"),
    "empty": (lambda: split("source", TensorDataset(SOURCE.x[:0], SOURCE.y[:0])), "map-style data set"),
    "too few": (
        lambda: ntbench.protect("none", model(), **GOOD | {"source": (SOURCE.x[:2], SOURCE.y[:2])}),
        "source holds 2 samples",
    ),
    "more classes than the model": (
        lambda: ntbench.protect("none", model(), **GOOD | {"source": (SOURCE.x, SOURCE.y + 1)}),
        "source has labels up to 3; the model tells 3 classes apart",
    ),
    "two sizes": (
        lambda: ntbench.protect("none", model(), **GOOD | {"target": (TARGET.x[..., :8, :8], TARGET.y)}),
        "source images have 16 pixels, target images 8",
    ),
    "no target": (lambda: ntbench.protect("ntl", model(), source=data(SOURCE)), "ntl needs a target; give target="),
    "defense": (lambda: ntbench.protect("sophn", model(), **GOOD), "unknown defense 'sophn'; did you mean 'sophon'"),
    "setting": (lambda: ntbench.protect("ntl", model(), **GOOD, stepz=1), "'stepz'; did you mean 'steps'"),
    "value": (lambda: ntbench.protect("ntl", model(), **GOOD, steps=-1), "ntl: steps = -1: "),
    "device": (lambda: ntbench.protect("none", model(), **GOOD, device="gpu"), "device 'gpu' cannot be used here"),
    "network": (
        lambda: declared(nn.Linear(3, 3)),
        "Linear has no get_classifier, .*; give a model with timm's interface",
    ),
    "attack": (lambda: ntbench.attack(model(), **GOOD, attacks=["finetun"]), "unknown attack 'finetun'"),
    "samples": (
        lambda: ntbench.attack(model(), **GOOD, samples=[6, 600]),
        r"samples=\[6, 600\]: give two counts or more",
    ),
    "steps": (lambda: ntbench.attack(model(), **GOOD, steps=4), "steps=4 leave no smaller budgets"),
    "name": (lambda: ntbench.attack(model(), **GOOD, name="scratch"), "name='scratch' is that of another row"),
    "clean model": (
        lambda: ntbench.attack(model(), **GOOD, undefended=build(Arch(name="cnn_bn"), 3, 0)),
        "the model is no held_",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_names_the_value_and_the_remedy(name: str) -> None:
    call, message = MISTAKES[name]
    with pytest.raises(UserError, match=message):
        call()


def test_an_attack_may_be_an_object() -> None:
    method: Attack = registry.get("attack", "finetune")(lr=0.05)
    few: dict[str, Any] = {"samples": (6, 24), "seeds": 1, "steps": 8, "progress": False}
    run = ntbench.attack(model(), source=data(SOURCE), target=data(TARGET), attacks=[method], **few)
    assert {r.cell.attack.params["lr"] for r in run.cells} == {0.05} and run.failures().empty
