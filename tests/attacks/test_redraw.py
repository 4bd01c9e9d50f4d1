"""Which layers stay and which are drawn anew."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from toys import CNN, context, learnt, on_timm_networks

from ntbench.learn.models import build, head, pack
from ntbench.learn.scoring import accuracy
from ntbench.registry import registry
from ntbench.types import Arch

depths = import_module("ntbench.attacks._layers").depths


def redraw(**params: Any) -> Any:
    return registry.get("attack", "redraw")(**params)


@pytest.mark.parametrize("classes", [3, 5])
@pytest.mark.parametrize("kept", [1, 2])
def test_the_first_blocks_stay_and_the_others_are_fresh(kept: int, classes: int) -> None:
    ctx, released = context(classes), learnt()
    before, fresh = pack(released), ctx.fresh(3)
    found = next(redraw(kept=kept, optimizer="sgd", lr=1e-50).attack(released, ctx))
    for name, parameter in found.named_parameters():
        if name.startswith("head"):
            assert parameter.shape[0] == classes
        else:
            stays = int(name.split(".")[1]) < kept
            assert torch.equal(parameter, before[name] if stays else fresh.get_parameter(name)), name


@on_timm_networks
def test_any_network_keeps_something_and_not_all(arch: Arch) -> None:
    model, ctx = build(arch, 3, seed=1), context(arch=arch)
    before, depth = pack(model), depths(model)
    next(redraw(kept=1, optimizer="sgd", lr=1e-50).attack(model, ctx))
    first = min(depth.values())
    kept = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert {name for name in depth if depth[name] == first} <= kept and len(kept) < len(depth)


def test_keeping_everything_is_refused() -> None:
    model = build(CNN, 3, seed=0)
    assert redraw(kept=2).unfit(model) == ""
    assert redraw(kept=3).unfit(model) == "SmallCNN has 3 layers below its head; keep fewer"


def test_it_learns() -> None:
    ctx, model = context(), learnt()
    assert ctx.target is not None
    *_, adapted = redraw(lr=1e-2).attack(model, ctx)
    assert accuracy(adapted, ctx.target) > 0.8 and head(adapted).out_features == 3
