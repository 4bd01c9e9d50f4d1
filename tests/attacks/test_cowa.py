"""CoWA: its mixture against SciPy and scikit-learn, its confidence and mixup against closed forms, and its effect."""

from __future__ import annotations

from importlib import import_module
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.nn import functional as F
from toys import draw, learnt, on_timm_networks
from unlabelled import granted, regained

from ntbench.learn.models import build
from ntbench.registry import registry
from ntbench.types import Arch

cowa = import_module("ntbench.attacks.cowa")
RIDGE = 1e-5


def attack(**params: Any) -> Any:
    return registry.get("attack", "cowa")(**params)


def clusters(count: int = 90, d: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Return unit-length features of three overlapping classes, soft predictions of them, and the classes."""
    y = torch.arange(count) % 3
    features = F.normalize(torch.eye(3, d)[y] + 0.35 * draw(count, d))
    return features, (1.5 * features[:, :3] + 0.3 * draw(count, 3, seed=1)).softmax(1), y


def scipys(x: np.ndarray, shares: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return log-posteriors from explicit means, covariances and SciPy's densities."""
    joint = []
    for k in range(shares.shape[1]):
        mean = np.average(x, axis=0, weights=shares[:, k])
        centred = x - mean
        covariance = (centred * spread[:, [k]]).T @ centred / spread[:, k].sum() + RIDGE * np.eye(x.shape[1])
        joint.append(multivariate_normal(mean, covariance).logpdf(x) + np.log(shares[:, k].mean()))
    stacked = np.stack(joint, 1)
    return np.asarray(stacked - logsumexp(stacked, axis=1, keepdims=True))


def test_posteriors_are_scipys() -> None:
    features, p, _ = clusters()
    x, shares = features.double().numpy(), p.double().numpy()
    uniform = np.ones_like(shares)
    first = cowa.log_posteriors(features, p, torch.ones_like(p), RIDGE).numpy()
    assert first == pytest.approx(scipys(x, shares, uniform), abs=1e-5)
    second = np.exp(first)
    assert cowa.fit_mixture(features, p, RIDGE).numpy() == pytest.approx(scipys(x, second, second), abs=1e-5)


def test_the_refinement_is_one_step_of_scikit_learns_em() -> None:
    features, p, _ = clusters()
    start = cowa.log_posteriors(features, p, torch.ones_like(p), RIDGE).exp().numpy()
    x = features.double().numpy()
    mixture = GaussianMixture(3, reg_covar=RIDGE)
    mixture._initialize(x, start)
    assert cowa.fit_mixture(features, p, RIDGE).exp().numpy() == pytest.approx(mixture.predict_proba(x), abs=1e-6)


def test_the_mixture_labels_better_than_the_model() -> None:
    y = torch.arange(300) % 3
    features = F.normalize(torch.eye(3, 4)[y] + 0.2 * draw(300, 4))
    wrong = torch.where(torch.arange(300) < 60, (y + 1) % 3, y)
    labels = cowa.fit_mixture(features, (2 * F.one_hot(wrong, 3).float()).softmax(1), RIDGE).argmax(1)
    assert float((labels == y).float().mean()) > 0.95


def test_singular_covariances_and_empty_classes_stay_finite() -> None:
    features = F.normalize(draw(12, 256))
    p = torch.zeros(12, 10).index_fill(1, torch.tensor([3]), 1.0)
    posteriors = cowa.fit_mixture(features, p, RIDGE)
    assert torch.isfinite(posteriors).all()
    confidence = cowa.joint_confidence(posteriors, p)
    assert torch.isfinite(confidence).all() and (confidence >= 0).all() and (confidence <= 1).all()


def test_confidence_is_the_gap_times_the_models_probability() -> None:
    posteriors = torch.tensor([[-0.1, -4.1, -9.0], [-3.0, -1.0, -7.0], [-2.0, -2.0, -3.0]])
    p = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25], [0.3, 0.4, 0.3]])
    assert cowa.joint_confidence(posteriors, p).tolist() == pytest.approx([1.0 * 0.7, 0.5 * 0.25, 0.0])


def test_identical_images_have_no_confidence() -> None:
    same = torch.full((4, 3), -1.0986)
    assert cowa.joint_confidence(same, same.exp()).tolist() == [0, 0, 0, 0]


def test_images_labels_and_weights_are_mixed_alike() -> None:
    share, partner = torch.tensor([1.0, 0.25, 0.0]), torch.tensor([1, 2, 0])
    for values in (draw(3, 2, 4, 4), draw(3, 5), draw(3)):
        mixed = cowa.mix(values, share, partner)
        assert torch.allclose(mixed[0], values[0]) and torch.allclose(mixed[2], values[0])
        assert torch.allclose(mixed[1], 0.25 * values[1] + 0.75 * values[2])


def test_labels_are_made_anew_as_often_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Mock(side_effect=cowa.fit_mixture)
    monkeypatch.setattr(cowa, "fit_mixture", counted)
    for refreshes, expected in ((1, 1), (5, 5), (99, 10)):
        counted.reset_mock()
        for _ in attack(refreshes=refreshes).attack(learnt(), granted(steps=10)):
            pass
        assert counted.call_count == expected


def test_it_regains_what_a_shift_took() -> None:
    assert regained(attack()) > 0.03


@on_timm_networks
def test_it_takes_any_network_and_twelve_images(arch: Arch) -> None:
    ctx = granted(count=12, classes=7, steps=3, arch=arch)
    assert len([None for _ in attack(refreshes=2).attack(build(arch, 7, seed=0), ctx)]) == 3
