"""NRC: its neighbourhoods against scikit-learn's, its loss against an explicit loop, and what it achieves."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn
from torch.nn import functional as F
from toys import draw, learnt, on_timm_networks
from unlabelled import granted, regained

from ntbench.learn.models import build, pack
from ntbench.method import Context
from ntbench.registry import registry
from ntbench.types import Arch

nrc = import_module("ntbench.attacks.nrc")
shared = import_module("ntbench.attacks._adaptation")
stepwise = import_module("ntbench.attacks._stepwise")


def attack(**params: Any) -> Any:
    return registry.get("attack", "nrc")(**params)


def oracle(bank: Tensor, own: int, count: int, expanded: int, affinity: float) -> tuple[list[int], list[float]]:
    """Return neighbours and affinities of one row, from scikit-learn's lists without the row itself."""
    lists = NearestNeighbors(n_neighbors=len(bank), metric="cosine").fit(bank.numpy()).kneighbors(bank.numpy())[1]
    near = lists[own][1 : count + 1].tolist()
    further = [lists[k][1 : expanded + 1].tolist() for k in near]
    first = [1.0 if own in row else affinity for row in further]
    return [*near, *(m for row in further for m in row)], first + [affinity] * (count * expanded)


@pytest.mark.parametrize("seed", range(3))
def test_neighbourhoods_are_those_of_scikit_learn(seed: int) -> None:
    bank, own = F.normalize(draw(30, 4, seed=seed)), torch.tensor([0, 11, 29])
    near, affinities = nrc.reciprocal(bank, own, 5, 4, 0.1)
    assert near.shape == affinities.shape == (3, 5 + 5 * 4)
    seen = set()
    for row, i in enumerate(own.tolist()):
        expected, weights = oracle(bank, i, 5, 4, 0.1)
        assert near[row].tolist() == expected
        assert affinities[row].tolist() == pytest.approx(weights)
        seen |= set(weights[:5])
    assert seen == {1.0, 0.1}


def test_a_crowd_far_away_does_not_answer() -> None:
    # Row 0 leans on a dense group, whose members have each other.
    angles = torch.tensor([0.0, 1.0, 1.01, 1.02, 1.03])
    bank = torch.stack([angles.cos(), angles.sin()], 1)
    near, affinities = nrc.reciprocal(bank, torch.tensor([0]), 2, 2, 0.25)
    assert near[0, :2].tolist() == [1, 2]
    assert affinities[0, :2].tolist() == [0.25, 0.25]


def test_few_images_have_fewer_neighbours() -> None:
    near, affinities = nrc.reciprocal(F.normalize(draw(3, 4)), torch.tensor([0, 1, 2]), 5, 4, 0.1)
    assert near.shape == affinities.shape == (3, 2 + 2 * 2)


def test_the_first_step_goes_down_the_loss_of_the_paper() -> None:
    ctx, lr = granted(count=20, steps=1), 1e-2
    assert ctx.target is not None
    *_, last = attack(lr=lr, backbone=1.0, weight_decay=0.0).attack(model := learnt(), ctx)
    assert last is model
    expected = learnt()
    loss = first_loss(expected, ctx)
    loss.backward()
    for p, q in zip(last.parameters(), expected.parameters(), strict=True):
        assert p is not q and q.grad is not None
        # The first Nesterov step with momentum 0.9 is 1.9 times the rate.
        assert torch.allclose(p, q - 1.9 * lr * q.grad, atol=1e-5)


def first_loss(model: nn.Module, ctx: Context) -> Tensor:
    """Return the loss of the first batch, one image and one neighbour at a time."""
    assert ctx.target is not None
    inputs, logits = shared.encode_all(model, ctx.target.x)
    bank, scores = F.normalize(inputs), logits.softmax(1)
    batches = stepwise.indexed_batches(ctx.target, 32, ctx.generator("batches"))
    x, own = next(batches)
    model.train()
    now, logits = shared.encode(model, x)
    p = logits.softmax(1)
    bank[own], scores[own] = F.normalize(now).detach(), p.detach()
    attraction = torch.zeros(())
    for row, i in enumerate(own.tolist()):
        for k, weight in zip(*oracle(bank, i, 5, 4, 0.1), strict=True):
            attraction = attraction + weight * scores[k] @ p[row]
    mean = p.mean(0)
    loss: Tensor = -attraction / len(own) + (mean * mean.log()).sum()
    return loss


def test_it_regains_what_a_shift_took() -> None:
    assert regained(attack()) > 0.03


@on_timm_networks
def test_it_takes_any_network_and_twelve_images(arch: Arch) -> None:
    model = build(arch, 7, seed=0)
    before = pack(model)
    yields = [None for _ in attack().attack(model, granted(count=12, classes=7, steps=3, arch=arch))]
    after = pack(model)
    assert len(yields) == 3 and any(not torch.equal(before[name], after[name]) for name in before)


def test_two_images_are_enough() -> None:
    assert len([None for _ in attack().attack(learnt(), granted(count=2, steps=2))]) == 2
