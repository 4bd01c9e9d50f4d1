"""Singular values before and after."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from toys import context, learnt, on_timm_networks

from ntbench.learn.models import build, pack
from ntbench.learn.scoring import accuracy
from ntbench.registry import registry
from ntbench.types import Arch

flatten = import_module("ntbench.attacks.flatten").flatten


def attack(**params: Any) -> Any:
    return registry.get("attack", "flatten")(**params)


@on_timm_networks
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_singular_values_move_to_their_mean_and_vectors_stay(arch: Arch, share: float) -> None:
    model = build(arch, 3, seed=1)
    before = pack(model)
    flatten(model, share)
    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            assert torch.equal(weight, before[name])
            continue
        old, new = (torch.linalg.svdvals(w.detach().flatten(1)) for w in (before[name], weight))
        assert torch.allclose(new, (1 - share) * old + share * old.mean(), atol=1e-4), name
        product = before[name].flatten(1) @ weight.detach().flatten(1).T
        assert torch.allclose(product, product.T, atol=1e-4), name


def test_the_released_head_is_flattened_and_trains() -> None:
    ctx, model = context(), learnt()
    assert ctx.target is not None
    *_, adapted = attack().attack(model, ctx)
    assert accuracy(adapted, ctx.target) > 0.8
