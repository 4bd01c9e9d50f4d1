"""AdaContrast: the slow twin and InfoNCE against explicit loops, which view goes where, and its way on toy tasks."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from toys import CNN, context, domain, draw, learnt, on_timm_networks

from ntbench.learn.meter import Meter
from ntbench.learn.models import build, encoded, features, head, pack
from ntbench.method import Context
from ntbench.registry import registry
from ntbench.types import Arch

adaptation = import_module("ntbench.attacks._adaptation")
twins = import_module("ntbench.attacks._twin")
F = torch.nn.functional


def adacontrast(**params: Any) -> Any:
    return registry.get("attack", "adacontrast")(**params)


VIEWS = 4  # a step shows


def world(steps: int = 10, **shape: Any) -> Context:
    return replace(context(**shape), steps=steps)


def test_info_nce_is_the_explicit_loop() -> None:
    queries, positives, keys = (F.normalize(draw(n, 5, seed=n)) for n in (4, 4, 9))
    positives = positives.roll(1, 0)
    excluded = draw(4, 9, seed=1) > 0
    total = 0.0
    for i in range(4):
        near = math.exp(float(queries[i] @ positives[i]) / 0.2)
        far = [math.exp(float(queries[i] @ keys[j]) / 0.2) for j in range(9) if not excluded[i, j]]
        total -= math.log(near / (near + sum(far))) / 4
    assert twins.info_nce(queries, positives, keys, excluded, 0.2).item() == pytest.approx(total, abs=1e-5)
    assert twins.info_nce(queries, positives, keys[:0], excluded[:, :0], 0.2) == 0
    assert twins.info_nce(queries, positives, keys, torch.ones(4, 9, dtype=torch.bool), 0.2) == 0


def test_first_of_each_position() -> None:
    positions = torch.tensor([4, 2, 4, 7, 2, 0])
    assert adaptation.first_of_each(positions).tolist() == [0, 1, 3, 5]


def test_the_twin_starts_from_a_pass_over_all_images_and_no_keys() -> None:
    model, x = learnt(), domain(3, seed=2, count=50).x
    twin = twins.SlowTwin(model.train(), x, 0.9, 1000)
    plain = encoded(copy.deepcopy(model), x)
    assert torch.allclose(twin.features, F.normalize(plain), atol=1e-5)
    assert torch.allclose(twin.probabilities, head(model)(plain).softmax(1), atol=1e-5)
    assert len(twin.keys) == len(twin.owners) == 0
    assert model.training and all(p.requires_grad for p in model.parameters())


def test_neighbours_vote_by_cosine_distance_and_their_rows_are_renewed() -> None:
    model, x = learnt(), domain(3, seed=2, count=50).x
    twin = twins.SlowTwin(model, x, 0.9, 1000)
    bank, votes = twin.features.clone(), twin.probabilities.clone()
    own = torch.tensor([3, 8, 3, 40])
    views = draw(4, 3, 16, 16)
    queries = features(model.eval(), views).detach()
    refined = twin.refine(model, views, own, 6)
    near = NearestNeighbors(n_neighbors=6, metric="cosine").fit(bank).kneighbors(queries, return_distance=False)
    assert torch.allclose(refined, votes[torch.from_numpy(near)].mean(1), atol=1e-6)
    renewed = F.normalize(features(copy.deepcopy(model).train(), views)).detach()
    assert torch.allclose(twin.features[own[[0, 1, 3]]], renewed[[0, 1, 3]], atol=1e-5)
    rest = [i for i in range(50) if i not in own.tolist()]
    assert torch.equal(twin.features[rest], bank[rest]) and torch.equal(twin.probabilities[rest], votes[rest])
    assert torch.allclose(twin.probabilities.sum(1), torch.ones(50))


def test_what_is_remembered_may_be_what_the_model_itself_says() -> None:
    slow, fast, x = learnt(), build(CNN, 3, seed=5).eval(), domain(3, seed=2, count=12).x
    twin, own, views = twins.SlowTwin(slow, x, 0.9, 10), torch.tensor([3, 8]), draw(2, 3, 16, 16)
    twin.refine(fast, views, own, 2, slow=False)
    inputs = features(fast, views).detach()
    assert torch.allclose(twin.features[own], F.normalize(inputs), atol=1e-5)
    assert torch.allclose(twin.probabilities[own], head(fast)(inputs).softmax(1), atol=1e-5)


def test_the_twin_follows_by_an_exponential_average() -> None:
    slow, fast = learnt(), build(CNN, 3, seed=5)
    twin = twins.SlowTwin(slow, domain(3, seed=2, count=12).x, 0.75, 10)
    for _ in range(3):
        keys = twin.follow(fast, draw(4, 3, 16, 16))
    assert torch.allclose(keys.norm(dim=1), torch.ones(4)) and not keys.requires_grad
    for moved, a, b in zip(twin._model.parameters(), slow.parameters(), fast.parameters(), strict=True):
        assert torch.allclose(moved, 0.75**3 * a + (1 - 0.75**3) * b, atol=1e-5)


@pytest.mark.parametrize(("queue", "kept"), [(1000, 12), (7, 7)])
def test_the_queue_keeps_the_latest_and_no_more_than_there_are_images(queue: int, kept: int) -> None:
    twin = twins.SlowTwin(learnt(), domain(3, seed=2, count=12).x, 0.9, queue)
    for start in range(0, 20, 5):
        twin.enqueue(torch.full((5, 256), float(start)), torch.arange(start, start + 5))
        assert len(twin.keys) == len(twin.owners) == min(kept, start + 5)
    assert twin.owners.tolist()[:7] == [15, 16, 17, 18, 19, 10, 11]
    assert twin.keys[:, 0].tolist()[:7] == [15.0] * 5 + [10.0] * 2


def test_the_cross_entropy_sees_a_strong_view_unless_the_public_shift_is_asked_for() -> None:
    x = draw(8, 3, 16, 16).clamp(-1, 1)
    views = import_module("ntbench.attacks._views")

    def made(*kinds: str) -> list[torch.Tensor]:
        chance = torch.Generator().manual_seed(0)
        return [x if kind == "plain" else getattr(views, kind)(x, chance) for kind in kinds]

    expected = {"paper": made("weak", "strong", "strong"), "reference": made("plain", "weak", "strong")}
    for name, kinds in expected.items():
        found = adacontrast(views=name)._views(x, torch.Generator().manual_seed(0))
        assert all(torch.equal(a, b) for a, b in zip(found, kinds, strict=True))


def test_the_loss_adds_its_three_terms() -> None:
    twin = twins.SlowTwin(learnt(), domain(3, seed=2, count=12).x, 0.9, 10)
    twin.enqueue(F.normalize(draw(6, 256, seed=3)), torch.arange(6))
    inputs, keys, logits, labels = (
        draw(4, 256),
        F.normalize(draw(4, 256, seed=1)),
        draw(4, 3),
        torch.tensor([0, 1, 2, 0]),
    )
    excluded = labels[:, None] == torch.tensor([0, 1, 2, 0, 1, 2])
    p = logits.softmax(1)
    mean = p.mean(0)
    likely = -p[range(4), labels].log().mean()
    apart = twins.info_nce(F.normalize(inputs), keys, twin.keys, excluded, 0.5)
    expected = likely + 2 * apart + 3 * (mean * mean.log()).sum()
    attack = adacontrast(contrast=2, diversity=3, temperature=0.5)
    assert torch.allclose(attack._loss(inputs, logits, labels, twin, keys, excluded), expected, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 12])
def test_tiny_targets_will_do(count: int) -> None:
    ctx = world(steps=8)
    assert ctx.target is not None
    with Meter((3, 16, 16)) as meter:
        stages = list(adacontrast().attack(learnt(), replace(ctx, target=ctx.target.subset(torch.arange(count)))))
    assert (len(stages), meter.cost.steps, meter.cost.samples) == (8, 8, VIEWS * 8 * count + count)
    pack(stages[-1])


@on_timm_networks
def test_it_runs_on_timm_networks_within_the_budget(arch: Arch) -> None:
    with Meter((3, 16, 16)) as meter:
        for step, adapted in enumerate(
            adacontrast().attack(build(arch, 3, seed=0), world(steps=3, arch=arch)), start=1
        ):
            assert meter.cost.steps == step
            pack(adapted)
    assert meter.cost.samples >= 3 * 32


def test_other_class_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="5"):
        next(adacontrast().attack(build(CNN, 3, seed=0), world(target_classes=5)))
