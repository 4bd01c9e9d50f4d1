"""How deep parameters lie, and the rates that follow from it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from torch import nn
from toys import CNN, TIMM, on_timm_networks

from ntbench.learn.models import build, head
from ntbench.types import Arch

layers = import_module("ntbench.attacks._layers")


def groups(arch: Arch, decay: float = 0.5) -> tuple[nn.Module, list[dict[str, Any]]]:
    model = build(arch, 3, seed=0)
    trained = list(model.parameters())
    return model, layers.groups_of(trained, layers.decayed(model, trained, decay), 0.2)


def test_rates_fall_by_a_factor_from_block_to_block() -> None:
    model, found = groups(CNN)
    assert [group["lr"] for group in found] == pytest.approx([0.2 * 0.5**k for k in (3, 2, 1, 0)])
    names = {id(p): name for name, p in model.named_parameters()}
    assert [names[id(group["params"][0])] for group in found] == [
        *(f"blocks.{k}.0.weight" for k in range(3)),
        "head.weight",
    ]
    assert [len(group["params"]) for group in found] == [3, 3, 3, 2]


@on_timm_networks
def test_every_parameter_is_in_one_group_and_the_head_in_the_last(arch: Arch) -> None:
    model, found = groups(arch)
    ids = [id(p) for group in found for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    assert {id(p) for p in found[-1]["params"]} == {id(p) for p in head(model).parameters()}
    assert found[-1]["lr"] == 0.2


@pytest.mark.parametrize(
    ("arch", "count"),
    [
        (Arch(name="vit_tiny_patch16_224", params={"img_size": 32}), 14),
        (Arch(name="resnet18"), 10),
        (TIMM[2], 8),
    ],
    ids=str,
)
def test_norms_are_no_layers(arch: Arch, count: int) -> None:
    assert len(groups(arch)[1]) == count


def test_what_belongs_to_no_block_is_nearest_to_the_input() -> None:
    model, found = groups(TIMM[2])
    first = {id(p) for p in found[0]["params"]}
    assert {id(p) for name, p in model.named_parameters() if name in ("cls_token", "pos_embed")} < first


def test_a_norm_in_a_row_of_layers_belongs_to_the_one_before_it() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten())
    assert layers.depths(model) == {
        **dict.fromkeys(["0.weight", "0.bias", "1.weight", "1.bias"], 0),
        **dict.fromkeys(["3.weight", "3.bias"], 1),
    }


def test_layers_that_do_not_train_take_no_rate_away() -> None:
    model = build(CNN, 3, seed=0)
    chosen = [model.get_parameter("blocks.0.0.weight"), *head(model).parameters()]
    found = layers.groups_of(chosen, layers.decayed(model, chosen, 0.5), 0.2)
    assert [(len(group["params"]), group["lr"]) for group in found] == [(1, pytest.approx(0.1)), (2, 0.2)]


def test_without_factors_there_is_one_group() -> None:
    trained = list(build(CNN, 3, seed=0).parameters())
    assert layers.groups_of(trained, {}, 0.2) == [{"params": trained, "lr": 0.2}]
