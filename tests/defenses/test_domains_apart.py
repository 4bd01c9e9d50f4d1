"""Training on two domains: batch statistics of each domain's own, and a judge that follows the encoder."""

from __future__ import annotations

import copy
from importlib import import_module

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toys import TIMM, context, domain, draw, learnt

from ntbench.learn.models import build, features, head, pack
from ntbench.types import Arch

apart = import_module("ntbench.defenses._domains")
heads = import_module("ntbench.defenses._heads")


@pytest.mark.parametrize("arch", [Arch(name="cnns_bn"), *TIMM[:2]], ids=lambda arch: arch.name)
def test_running_statistics_are_the_sources_alone_and_each_batch_has_its_own(arch: Arch) -> None:
    model, xs, xt = build(arch, 3, seed=0).train(), draw(6, 3, 16, 16), 5 + 3 * draw(4, 3, 16, 16, seed=1)
    alone, other = copy.deepcopy(model), copy.deepcopy(model)
    fs, ft = apart.both_features(model, xs, xt)
    assert torch.equal(fs, features(alone, xs))
    assert torch.equal(ft, features(other, xt))
    assert all(torch.equal(a, b) for a, b in zip(pack(model).values(), pack(alone).values(), strict=True))
    assert not torch.equal(next(iter(other.buffers())), next(iter(alone.buffers())))


def test_the_mode_of_batch_norm_comes_back_after_an_error() -> None:
    model = learnt().train()
    with pytest.raises(ZeroDivisionError), apart.passing(model):
        raise ZeroDivisionError
    assert all(m.track_running_stats for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def test_the_judge_is_the_models_head_where_class_counts_agree() -> None:
    model, ft, yt = learnt(), draw(5, 256), torch.zeros(5, dtype=torch.int64)
    assert torch.equal(heads.target_judge(model, context(3), 1, 1)(ft, yt), head(model)(ft))


def test_the_judge_of_other_classes_follows_features_that_turn_away() -> None:
    ctx = context(5)
    model = learnt()
    data = domain(5, seed=2, count=100, shift=0.4)
    seen = features(model.eval(), data.x).detach()
    turned = (seen - 2 * seen.mean(0)).flip(1)
    frozen, following = (heads.target_judge(model, ctx, 60, refits) for refits in (0, 20))
    for judge in (frozen, following):
        assert F.cross_entropy(judge(seen, data.y), data.y) < 0.3
    ft = turned.requires_grad_(True)
    for _ in range(5):
        loss = F.cross_entropy(following(ft, data.y), data.y)
    assert loss < 0.3 < F.cross_entropy(frozen(ft, data.y), data.y)
    # The gradient goes to the features, not to the judge.
    loss.backward()
    assert ft.grad is not None and ft.grad.any()
