"""The strategies of fine-tuning: what is drawn anew, what trains and what is refused."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F
from toys import context, defense, draw, learnt

from ntbench.learn.meter import Meter
from ntbench.learn.models import Head, build, encoded, head, pack
from ntbench.method import Context
from ntbench.registry import registry
from ntbench.types import Arch

renew_classifier = import_module("ntbench.attacks.finetune").renew_classifier
HEAD = {"head.weight", "head.bias"}
# VGG's own classifier alone has a hundred million weights.
BEHIND_THE_MAPS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "vgg11": (
        {"mlp_ratio": 0.01},
        {f"pre_logits.{layer}.{p}" for layer in ("fc1", "fc2") for p in ("weight", "bias")}
        | {"head.fc.weight", "head.fc.bias"},
    ),
    "cnns_bn": ({}, HEAD),
    "test_resnet": ({}, {"fc.weight", "fc.bias"}),
    "test_efficientnet": ({}, {"classifier.weight", "classifier.bias"}),
    "test_vit": ({"img_size": 32}, HEAD),
    # With average pooling the last norm of a transformer stands behind the pooling.
    "vit_tiny_patch16_224": (
        {"img_size": 32, "depth": 1, "global_pool": "avg", "class_token": False},
        HEAD | {"fc_norm.weight", "fc_norm.bias"},
    ),
}


def finetune(**params: Any) -> Any:
    return registry.get("attack", "finetune")(**params)


@pytest.mark.parametrize("classes", [3, 4])
@pytest.mark.parametrize("name", BEHIND_THE_MAPS)
def test_a_whole_new_classifier_is_what_lies_behind_the_feature_maps(name: str, classes: int) -> None:
    params, expected = BEHIND_THE_MAPS[name]
    ctx = context(target_classes=classes, arch=Arch(name=name, params=params), size=32)
    model, fresh = build(Arch(name=name, params=params), 3, seed=1), ctx.fresh(3)
    for seed, net in enumerate((model, fresh)):
        for parameter in net.parameters():
            parameter.data.copy_(draw(*parameter.shape, seed=seed))
    before, buffers = pack(model), dict(model.named_buffers())
    with Meter((3, 32, 32)) as meter:
        renew_classifier(model, replace(ctx, fresh=lambda k: fresh), draw(2, 3, 32, 32))
    after = dict(model.named_parameters())
    assert {key for key, p in after.items() if not torch.equal(p, before[key])} == expected
    assert all(torch.equal(buffer, before[key]) for key, buffer in buffers.items())
    assert head(model).out_features == classes and meter.cost.samples == 1
    behind = expected - {key for key, p in after.items() if p is head(model).weight or p is head(model).bias}
    assert all(torch.equal(after[key], fresh.get_parameter(key)) for key in behind)


@pytest.mark.parametrize("init", ["keep", "reinit", "whole"])
def test_what_is_drawn_anew_stays_within_the_budget(init: str) -> None:
    ctx, model = context(), learnt()
    before = head(model).weight.detach().clone()
    attack = finetune(init=init, optimizer="sgd", lr=1e-9).attack(model, ctx)
    with Meter((3, 16, 16)) as meter:
        stages = list(attack)
    # A whole new classifier is found with the help of one image.
    assert len(stages) == meter.cost.steps == 10 and meter.cost.samples == 320 + (init == "whole")
    assert torch.allclose(head(model).weight, before, atol=1e-6) == (init == "keep")


def test_another_seed_draws_another_head() -> None:
    found = []
    for seed in (0, 0, 1):
        model = learnt()
        next(finetune(init="reinit", optimizer="sgd", lr=1e-9).attack(model, replace(context(), seed=seed)))
        found.append(head(model).weight.detach())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def on_features(model: nn.Module, ctx: Context) -> Context:
    assert ctx.target is not None
    return replace(ctx, target=replace(ctx.target, held=encoded(model, ctx.target.x)))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("init", ["keep", "reinit"])
def test_the_head_alone_trains_as_it_does_within_the_whole_model(init: str, classes: int) -> None:
    ctx, whole, released = context(target_classes=classes), learnt(), learnt()
    attack = finetune(scope="head", init=init, lr=0.1, schedule="constant")
    assert attack.on_features and not finetune().on_features
    alone = Head(head(released))
    stages = [(head(m).weight.detach().clone()) for m in attack.attack(alone, on_features(released, ctx))]

    if init == "reinit" or classes != 3:
        whole.reset_classifier(classes)  # type: ignore[operator]
        fresh = Head(nn.Linear(head(whole).in_features, 3))
        renewed = finetune(scope="head", init="reinit", optimizer="sgd", lr=1e-9)
        next(renewed.attack(fresh, on_features(released, ctx)))
        head(whole).load_state_dict(head(fresh).state_dict())
    assert ctx.target is not None
    optimizer = torch.optim.SGD(whole.parameters(), lr=0.1, momentum=0.9)
    batches = ctx.target.batches(32, ctx.generator("batches"))
    whole.eval().requires_grad_(False)
    head(whole).requires_grad_(True)
    for found, (x, y) in zip(stages, batches, strict=False):
        optimizer.zero_grad()
        F.cross_entropy(whole(x), y).backward()
        optimizer.step()
        assert torch.allclose(found, head(whole).weight, atol=1e-4)
    assert len(stages) == 10


@pytest.mark.parametrize("params", [{"augment": "weak"}, {"layer_decay": 0.9}, {"init": "whole"}], ids=str)
def test_the_head_alone_refuses_what_needs_images_or_layers(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="trains one layer on features; leave augment, layer_decay"):
        finetune(scope="head", **params)
    finetune(scope="all", **params)


@pytest.mark.parametrize(
    "params",
    [{"optimizer": "adamm"}, {"schedule": "cosin"}, {"lr": 0}, {"layer_decay": 1.1}, {"warmup": -1}, {"augment": "x"}],
    ids=str,
)
def test_settings_outside_their_range_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        finetune(**params)


def pruned() -> nn.Module:
    model = learnt()
    for weight in (p.data for p in model.parameters() if p.ndim > 1):
        weight.mul_(weight.abs() > weight.abs().median())
    return model


@pytest.mark.parametrize("mask", ["keep", "dense"])
def test_a_kept_mask_stays_and_a_dropped_one_grows_over(mask: str) -> None:
    model = pruned()
    zeros = {name: p == 0 for name, p in model.named_parameters() if p.ndim > 1}
    attack = finetune(mask=mask)
    assert attack.respects_mask == (mask == "keep")
    for _ in attack.attack(model, context()):
        regrown = sum(int((model.get_parameter(name)[zero] != 0).sum()) for name, zero in zeros.items())
        assert (regrown > 1000) == (mask == "dense") and (regrown == 0) == (mask == "keep")
    assert bool(attack.refuses(defense("none"), 3, 3)) == (mask == "keep")
