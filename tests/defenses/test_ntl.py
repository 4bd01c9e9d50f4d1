"""NTL's loss in nats and as its public code scales it."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F
from toys import CNN, defense, draw

from ntbench.learn.models import build, features, head

bounded = import_module("ntbench.defenses._bounded")
mmd = import_module("ntbench.defenses._mmd").mmd


def element_mean_kl(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the public code's loss: torch's KL divergence to one-hot labels with its mean over all elements."""
    return F.kl_div(logits.log_softmax(1), F.one_hot(labels, logits.shape[1]).float(), reduction="none").mean()


@pytest.mark.parametrize("classes", [2, 3, 10, 65])
def test_klmean_is_the_cross_entropy_over_k(classes: int) -> None:
    logits, labels = 3 * draw(8, classes), torch.arange(8) % classes
    nats, mean = (bounded.label_loss(logits, labels, scale) for scale in ("nats", "klmean"))
    assert torch.allclose(nats, F.cross_entropy(logits, labels))
    assert torch.allclose(mean, element_mean_kl(logits, labels))
    assert torch.allclose(mean * classes, nats)


@pytest.mark.parametrize("batches", ["own", "joint", "separate"])
@pytest.mark.parametrize("alpha", [0.1, 1e6])
@pytest.mark.parametrize("beta", [0.01, 1e6])
def test_klmean_loss_is_the_public_one(alpha: float, beta: float, batches: str) -> None:
    model = build(CNN, 3, seed=0).eval()
    xs, xt, y = draw(6, 3, 16, 16), draw(6, 3, 16, 16, seed=1), torch.arange(6) % 3
    leak = (alpha * element_mean_kl(model(xt), y)).clamp(0, 1)
    gap = (beta * mmd(features(model, xs), features(model, xt))).clamp(0, 1)
    ntl = defense("ntl", alpha=alpha, beta=beta, scale="klmean", batches=batches)
    loss = ntl._loss(model, lambda f, _: head(model)(f), (xs, y), (xt, y))
    assert torch.allclose(loss, element_mean_kl(model(xs), y) - leak * gap, atol=1e-6)


@pytest.mark.parametrize(("scale", "bound"), [("nats", 1.0), ("klmean", 4.0)])
def test_the_bound_takes_the_gradient_at_the_scale_that_is_named(scale: str, bound: float) -> None:
    # With K = 4 and alpha = 1 the bound stands at CE_T = 1 nat, or at K nats in the public scale.
    labels = torch.zeros(2, dtype=torch.int64)
    for cross_entropy, moves in ((bound - 0.05, True), (bound + 0.05, False)):
        p = torch.tensor(-cross_entropy).exp()
        logits = torch.stack([p, *((1 - p) / 3).expand(3)]).log().repeat(2, 1).requires_grad_(True)
        (gradient,) = torch.autograd.grad(bounded.label_loss(logits, labels, scale).clamp_max(1), logits)
        assert bool(gradient.abs().max() > 0) is moves


def test_the_published_scale_is_the_default_and_others_are_refused() -> None:
    assert {defense(name).scale for name in ("ntl", "ntl_source_only", "cuti", "cupi")} == {"klmean"}
    with pytest.raises(ValidationError, match="scale"):
        defense("ntl", scale="bits")
