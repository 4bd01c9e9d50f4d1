"""TransNTL: group weights, perturbations, self-distillation and the ascent of SAM, against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import entropy
from toys import context, draw, learnt

from ntbench.learn.meter import Meter
from ntbench.learn.models import pack
from ntbench.registry import registry

transntl = import_module("ntbench.attacks.transntl")
climb = import_module("ntbench.attacks._sam").climb


def run(**params: Any) -> tuple[Any, Meter]:
    ctx = replace(context(), target=None)
    with Meter((3, 16, 16)) as meter:
        *_, model = registry.get("attack", "transntl")(**params).attack(learnt(), ctx)
    return model, meter


def test_group_weights_follow_the_exponentiated_losses_on_the_simplex() -> None:
    shares, losses = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([1.0, 0.0, 2.0])
    expected = shares * torch.exp(0.5 * losses)
    assert torch.allclose(transntl.reweighted(shares, losses, 0.5), expected / expected.sum())
    for seed in range(200):
        shares = transntl.reweighted(shares, draw(3, seed=seed).abs() * 50, 1.0)
    assert torch.isclose(shares.sum(), torch.tensor(1.0)) and (shares >= 0).all()
    assert torch.equal(transntl.reweighted(torch.full([3], 1 / 3), losses, 0.0).argmax(), torch.tensor(0))


def test_the_public_code_moves_the_group_weights_twice() -> None:
    attack = registry.get("attack", "transntl")(eta=0.5)
    images, y, shares = draw(16, 3, 8, 8), torch.arange(4) % 3, torch.full([3], 1 / 3)
    model = learnt().eval()
    _, once = attack._loss(model, images, y, shares, attack.eta)
    _, again = attack._loss(model, images, y, once, attack.eta)
    assert (once.log() - shares.log()).diff().abs().min() > 1e-3
    assert torch.allclose((again.log() - once.log()).diff(), (once.log() - shares.log()).diff(), atol=1e-5)
    one, two = (pack(run(eta=5.0, updates=updates)[0])["head.weight"] for updates in ("once", "twice"))
    assert not torch.equal(one, two)


def test_the_loss_is_cross_entropy_plus_the_weighted_groups() -> None:
    images, y = draw(16, 3, 8, 8), torch.arange(4) % 3
    model, shares = learnt().eval(), torch.tensor([0.2, 0.3, 0.5])
    attack = registry.get("attack", "transntl")(weight=0.7, temperature=2.0)
    with torch.no_grad():
        clean, *groups = model(images).double().numpy().reshape(4, 4, 3)
        loss, _ = attack._loss(model, images, y, shares, 0.0)
        averaged, _ = registry.get("attack", "transntl")(weight=2.1, temperature=2.0, scale="klmean")._loss(
            model, images, y, shares, 0.0
        )
    chances = [np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (clean, clean / 2, *groups)]
    plain = -np.log(chances[0][np.arange(4), y.numpy()]).mean()
    divergences = [entropy(chances[1], group, axis=1).mean() for group in chances[2:]]
    assert loss.item() == pytest.approx(plain + 0.7 * np.dot([0.2, 0.3, 0.5], divergences), rel=1e-5)
    assert averaged.item() == pytest.approx(loss.item(), rel=1e-5)


def test_self_distillation_is_zero_for_equal_logits_and_moves_the_perturbed_alone() -> None:
    logits = draw(5, 4)
    assert transntl.self_distillation(logits, logits, 1.0).item() == pytest.approx(0, abs=1e-6)
    clean, group = logits.clone().requires_grad_(), draw(5, 4, seed=1).requires_grad_()
    transntl.self_distillation(clean, group, 1.0).backward()
    assert clean.grad is None
    assert group.grad is not None
    assert torch.allclose(group.grad, (group.softmax(1) - clean.softmax(1)).detach() / 5, atol=1e-6)


def test_the_groups_are_made_with_one_noise_and_scipys_blur() -> None:
    x = draw(50, 3, 16, 16)
    added, scaled, blurred = transntl.perturbed(x, 0.2, torch.Generator().manual_seed(0))
    noise = added - x
    assert noise.std().item() == pytest.approx(0.2, rel=0.02) and abs(noise.mean().item()) < 0.01
    assert torch.allclose(scaled, x * (1 + noise), atol=1e-5)
    expected = gaussian_filter(x.double().numpy(), sigma=(0, 0, 1.1, 1.1), truncate=2 / 1.1, mode="mirror")
    assert np.allclose(blurred.numpy(), expected, atol=1e-4)


def test_the_climb_has_its_closed_form_and_the_gradient_of_the_weights_themselves() -> None:
    weights = {"a": torch.tensor([3.0, -1.0]).requires_grad_(), "b": torch.tensor([[2.0]]).requires_grad_()}
    gradients = {"a": torch.tensor([0.5, 4.0]), "b": torch.tensor([[-1.0]])}
    above = climb(weights, gradients, rho=0.1)
    norm = math.sqrt(1.5**2 + 4.0**2 + 2.0**2)  # of |w| g
    assert torch.allclose(above["a"], torch.tensor([3 + 0.1 * 9 * 0.5 / norm, -1 + 0.1 * 4 / norm]))
    assert torch.allclose(above["b"], torch.tensor([[2 - 0.1 * 4 / norm]]))
    plain = climb(weights, gradients, rho=0.1, adaptive=False)
    length = math.sqrt(sum(float((plain[n] - weights[n]).detach().square().sum()) for n in weights))
    assert length == pytest.approx(0.1, rel=1e-5)
    (3 * above["a"].sum()).backward()
    assert weights["a"].grad is not None and torch.equal(weights["a"].grad, torch.tensor([3.0, 3.0]))


def test_every_view_has_a_whole_batch_and_both_passes_are_counted() -> None:
    _, meter = run()
    assert (meter.cost.steps, meter.cost.samples) == (10, 10 * 2 * 4 * 32)


def test_rho_zero_is_no_climb() -> None:
    x = {"w": draw(3).requires_grad_()}
    assert torch.equal(climb(x, {"w": draw(3, seed=1)}, rho=0.0)["w"], x["w"])
    assert not torch.equal(pack(run(rho=0.0)[0])["head.weight"], pack(run(rho=0.5)[0])["head.weight"])
