"""SHOT: its pseudo-labels against an explicit loop and planted clusters, its frozen head, and what it achieves."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from toys import draw, learnt, on_timm_networks
from unlabelled import granted, regained

from ntbench.learn.models import build, pack
from ntbench.method import head
from ntbench.registry import registry
from ntbench.types import Arch

shot = import_module("ntbench.attacks.shot")


def attack(**params: Any) -> Any:
    return registry.get("attack", "shot")(**params)


def loop_labels(features: torch.Tensor, probabilities: torch.Tensor) -> list[int]:
    """Return pseudo-labels as the paper writes them, one class and one image at a time."""
    extended = torch.cat([features, torch.ones(len(features), 1, dtype=features.dtype)], 1)
    points = [row / row.norm() for row in extended]
    labels = probabilities.argmax(1).tolist()
    weights = probabilities.tolist()
    for _ in range(2):
        centroids = {}
        for k in sorted(set(labels)):
            total = sum(w[k] for w in weights)
            centroids[k] = sum((w[k] / total * p for w, p in zip(weights, points, strict=True)), torch.zeros(()))
        labels = [max(centroids, key=lambda k: float(torch.cosine_similarity(p, centroids[k], dim=0))) for p in points]
        weights = [[float(k == label) for k in range(probabilities.shape[1])] for label in labels]
    return labels


@pytest.mark.parametrize("seed", range(4))
def test_pseudo_labels_are_those_of_an_explicit_loop(seed: int) -> None:
    features, p = draw(30, 5, seed=seed).double(), (2 * draw(30, 7, seed=seed + 10)).double().softmax(1)
    assert shot.centroid_labels(features, p).tolist() == loop_labels(features, p)


def test_centroids_correct_wrong_predictions() -> None:
    y = torch.arange(60) % 3
    features = 4 * torch.eye(3)[y] + 0.3 * draw(60, 3)
    wrong = torch.where(torch.arange(60) < 12, (y + 1) % 3, y)
    p = (2 * torch.nn.functional.one_hot(wrong, 3).float()).softmax(1)
    assert torch.equal(shot.centroid_labels(features, p), y)


def test_a_class_without_members_is_not_given() -> None:
    p = torch.tensor([[0.6, 0.0, 0.4], [0.6, 0.0, 0.4]])
    assert set(shot.centroid_labels(draw(2, 5), p).tolist()) <= {0}


def test_the_head_stands_still_and_the_rest_moves() -> None:
    model = learnt()
    before = pack(model)
    *_, last = attack(lr=1e-2).attack(model, granted())
    after = pack(last)
    for name in before:
        if name.startswith("head."):
            assert torch.equal(before[name], after[name])
        elif name.endswith("weight"):
            assert not torch.equal(before[name], after[name])
    assert not head(last).weight.requires_grad


def test_information_is_gained() -> None:
    shared = import_module("ntbench.attacks._adaptation")
    ctx, model = granted(steps=30), learnt()
    assert ctx.target is not None

    def information() -> float:
        _, logits = shared.encode_all(model, ctx.target.x)  # type: ignore[union-attr]
        return float(shared.marginal_entropy(logits) - shared.mean_entropy(logits))

    before = information()
    for _ in attack(lr=1e-2, pseudo=0.0).attack(model, ctx):
        pass
    assert information() > before + 0.05


def test_it_regains_what_a_shift_took() -> None:
    assert regained(attack()) > 0.03


@on_timm_networks
def test_it_takes_any_network_and_twelve_images(arch: Arch) -> None:
    ctx = granted(count=12, classes=7, steps=3, arch=arch)
    yields = [None for _ in attack(refreshes=2).attack(build(arch, 7, seed=0), ctx)]
    assert len(yields) == 3
