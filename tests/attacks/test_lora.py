"""Low-rank adaptation: the maths of the updates, what stays frozen, and the plain model that is handed over."""

from __future__ import annotations

import copy
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys import CNN, TIMM, context, draw, learnt, same

from ntbench.learn.meter import Meter
from ntbench.learn.models import build, head, pack
from ntbench.learn.scoring import accuracy
from ntbench.method import Context
from ntbench.registry import registry
from ntbench.types import Arch

lora = import_module("ntbench.attacks._lora")
on_networks = pytest.mark.parametrize("arch", [CNN, *TIMM], ids=lambda arch: arch.name)


def attack(**params: Any) -> Any:
    return registry.get("attack", "lora")(**params)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def moved(update: Any) -> Any:
    """Return an update whose B is no longer zero."""
    with torch.no_grad():
        update.up.copy_(draw(*update.up.shape, seed=3))
    return update


def alive(arch: Arch) -> nn.Module:
    """Return a network in which no norm closes a branch, as timm's initialisation of a residual network does."""
    model = build(arch, 3, seed=0)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 and name.endswith("weight"):
            nn.init.ones_(parameter)
    return model


def granted(steps: int, **params: Any) -> Context:
    return replace(context(**params), steps=steps)


@pytest.mark.parametrize("rank", [1, 4, 99])
@pytest.mark.parametrize("shape", [(6, 10), (8, 4, 3, 3), (12, 1, 3, 3)], ids=str)
def test_an_update_has_the_rank_and_the_scale_that_it_is_given(shape: tuple[int, ...], rank: int) -> None:
    found = [moved(lora.LowRank(torch.zeros(shape), rank, scale, generator()))() for scale in (1.0, 2.0)]
    assert found[0].shape == shape
    highest = min(rank, *found[0].flatten(1).shape)
    assert torch.linalg.matrix_rank(found[0].flatten(1)) == highest
    assert torch.allclose(found[1], 2 * found[0])
    zero = lora.LowRank(torch.zeros(shape), rank, 1.0, generator())
    assert zero.up.shape[1] == zero.down.shape[0] == highest and not zero().any()


def test_the_first_factor_is_gaussian_of_variance_one_over_inputs() -> None:
    down = lora.LowRank(torch.zeros(200, 20, 3, 3), 100, 2.0, generator()).down
    assert down.mean().item() == pytest.approx(0, abs=3e-3)
    assert down.var().item() == pytest.approx(1 / 180, rel=0.05)


def test_a_convolution_gets_one_to_r_channels_and_a_1x1_after_it() -> None:
    update = moved(lora.LowRank(torch.zeros(8, 5, 3, 3), 4, 2.0, generator()))
    x = draw(2, 5, 7, 7)
    narrow = F.conv2d(x, update.down.view(4, 5, 3, 3), padding=1)
    expected = 2.0 * F.conv2d(narrow, update.up.view(8, 4, 1, 1))
    assert torch.allclose(F.conv2d(x, update(), padding=1), expected, atol=1e-4)


@on_networks
def test_at_the_start_the_function_is_that_of_the_released_model(arch: Arch) -> None:
    model = build(arch, 3, seed=0).eval()
    x = draw(4, 3, 16, 16)
    with torch.no_grad():
        before = model(x)
        adapted = lora.LowRankModel(model, 4, 2.0, generator()).eval()
        assert torch.equal(adapted(x), before)
        adapted.merge()
        assert torch.equal(model(x), before)


@on_networks
def test_every_linear_and_convolution_layer_below_the_head_has_an_update(arch: Arch) -> None:
    model = build(arch, 3, seed=0)
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d) and m is not head(model)]
    adapted = lora.LowRankModel(model, 2, 2.0, generator())
    assert len(adapted.updates) == len(layers) > 2
    assert {id(p) for p in adapted.trained} == {
        id(p) for p in [*adapted.updates.parameters(), *head(model).parameters()]
    }


@on_networks
def test_the_gradients_are_those_of_the_product(arch: Arch) -> None:
    model, x, y = build(arch, 3, seed=0).eval(), draw(6, 3, 16, 16), torch.arange(6) % 3
    plain = copy.deepcopy(model)
    F.cross_entropy(plain(x), y).backward()
    adapted = lora.LowRankModel(model, 2, 3.0, generator()).eval()
    F.cross_entropy(adapted(x), y).backward()
    for name, update in zip(adapted._names, adapted.updates, strict=True):
        gradient = plain.get_parameter(name).grad
        assert gradient is not None
        assert torch.allclose(update.up.grad, 3.0 * gradient.flatten(1) @ update.down.T, atol=1e-5, rtol=1e-3), name
        assert not update.down.grad.any()
    found, expected = head(model).weight.grad, head(plain).weight.grad
    assert found is not None and expected is not None and torch.allclose(found, expected, atol=1e-6)


@on_networks
def test_weights_change_by_low_rank_and_all_else_but_the_head_is_frozen(arch: Arch) -> None:
    ctx, model = granted(3, arch=arch), alive(arch)
    before: dict[str, Tensor] = {name: p.detach().clone() for name, p in model.named_parameters()}
    heads = {name for name, p in model.named_parameters() if p is head(model).weight or p is head(model).bias}
    layers = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)} - heads
    *_, adapted = attack(rank=2, lr=1e-2).attack(model, ctx)
    assert adapted is model and before.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        change = (parameter.detach() - before[name]).double()
        if name in layers:
            values = torch.linalg.svdvals(change.flatten(1))
            # What is left beyond the rank is what float32 rounds off a weight.
            assert values[0] > 1e-4 and (values[2:] < 1e-2 * values[0]).all(), name
        else:
            assert bool(change.any()) == (name in heads), name


@on_networks
def test_what_is_handed_over_is_a_plain_model_that_says_what_was_trained(arch: Arch) -> None:
    model, x = alive(arch), draw(4, 3, 16, 16)
    adapted = lora.LowRankModel(model, 2, 2.0, generator()).eval()
    for update in adapted.updates:
        moved(update)
        update.up.data.mul_(0.1)
    with torch.no_grad():
        expected = adapted(x)
        assert not torch.allclose(model(x), expected, atol=1e-4, rtol=1e-2)
        adapted.merge()
        assert torch.allclose(model(x), expected, atol=1e-5)
        fresh = build(arch, 3, seed=8)
        fresh.load_state_dict(pack(model))
        assert torch.allclose(fresh.eval()(x), expected, atol=1e-5)


def test_a_frozen_weight_is_a_part_of_its_update() -> None:
    weight = draw(6, 4)
    assert torch.equal(lora.LowRank(weight, 2, 1.0, generator())(), weight)


def test_every_stage_can_be_copied_and_scored_without_changing_what_follows() -> None:
    ctx = granted(5)
    assert ctx.target is not None
    undisturbed = [pack(stage) for stage in attack().attack(learnt(), ctx)]
    for expected, stage in zip(undisturbed, attack().attack(learnt(), ctx), strict=True):
        assert same(pack(copy.deepcopy(stage)), expected)
        accuracy(stage, ctx.target)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("params", [{}, {"layer_decay": 0.8, "warmup": 3, "augment": "weak"}], ids=str)
def test_it_learns_the_target_within_the_budget(classes: int, params: dict[str, Any]) -> None:
    ctx, model = granted(60, target_classes=classes), learnt()
    assert ctx.target is not None
    with Meter((3, 16, 16)) as meter:
        *_, adapted = attack(lr=1e-2, **params).attack(model, ctx)
    assert meter.cost.steps == 60 and meter.cost.samples == 60 * 32 and meter.cost.flops > 0
    assert accuracy(adapted, ctx.target) > 0.9 and head(adapted).out_features == classes


def test_an_update_is_as_deep_as_its_weight() -> None:
    layers = import_module("ntbench.attacks._layers")
    adapted = lora.LowRankModel(learnt(), 2, 2.0, generator())
    groups = layers.groups_of(adapted.trained, layers.decayed(adapted, adapted.trained, 0.5), 0.4)
    assert [group["lr"] for group in groups] == pytest.approx([0.05, 0.1, 0.2, 0.4])
    assert [len(group["params"]) for group in groups] == [2, 2, 2, 2]
    assert groups[0]["params"][0] is adapted.updates[0].down and groups[3]["params"][0] is head(adapted.model).weight
    vit = lora.LowRankModel(build(TIMM[2], 3, seed=0), 2, 2.0, generator())
    assert len(set(layers.decayed(vit, vit.trained, 0.5).values())) == 8
