"""The maths that several defenses share, against closed forms, explicit loops, SciPy and torch."""

from __future__ import annotations

import math
from importlib import import_module
from itertools import count

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import rel_entr
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.tasks.data import Split

losses = import_module("ntbench.defenses._losses")
mmd = import_module("ntbench.defenses._mmd").mmd
fisher = import_module("ntbench.defenses._fisher")
fisher_ratio, public_fisher_ratio = fisher.fisher_ratio, fisher.public_fisher_ratio
pruning = import_module("ntbench.defenses._pruning")
query_gradients = import_module("ntbench.defenses._meta").query_gradients


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


LABELS = torch.tensor([0, 3, 6, 2])


def gradient(function: nn.Module | object, z: Tensor) -> Tensor:
    z = z.clone().requires_grad_(True)
    return torch.autograd.grad(function(z), z)[0]  # type: ignore[operator]


def test_ice_is_minus_log_of_one_minus_the_true_class() -> None:
    z = draw(4, 7)
    p = z.softmax(1)[torch.arange(4), LABELS]
    assert torch.allclose(losses.inverse_cross_entropy(z, LABELS), -(1 - p).log().mean())


def test_ice_gradient_has_its_closed_form() -> None:
    z = draw(4, 7)
    p, true = z.softmax(1), F.one_hot(LABELS, 7).double()
    others = p * (1 - true) / (1 - (p * true).sum(1, keepdim=True))
    expected = (p - others) / 4
    assert torch.allclose(gradient(lambda z: losses.inverse_cross_entropy(z, LABELS), z), expected)


def test_ice_is_bounded_and_finite_where_the_true_class_is_certain() -> None:
    z = 1e4 * F.one_hot(LABELS, 7).double()
    assert losses.inverse_cross_entropy(z, LABELS, floor=1e-4).item() == pytest.approx(-math.log(1e-4))
    assert torch.isfinite(gradient(lambda z: losses.inverse_cross_entropy(z, LABELS), z)).all()


def test_reversed_cross_entropy_is_log_k_at_zero_logits() -> None:
    assert losses.reversed_cross_entropy(torch.zeros(4, 7), LABELS).item() == pytest.approx(math.log(7))


def test_reversed_cross_entropy_and_its_gradient_have_their_closed_forms() -> None:
    z = draw(4, 7)
    true = F.one_hot(LABELS, 7)
    value = ((z * true).sum(1) + (-z).logsumexp(1)).mean()
    assert torch.allclose(losses.reversed_cross_entropy(z, LABELS), value)
    expected = (true - (-z).softmax(1)) / 4
    assert torch.allclose(gradient(lambda z: losses.reversed_cross_entropy(z, LABELS), z), expected)


@pytest.mark.parametrize("classes", [2, 7, 10])
def test_kl_to_uniform_uses_one_over_k(classes: int) -> None:
    z = draw(4, classes, scale=3)
    p = z.softmax(1).numpy()
    expected = rel_entr(np.full_like(p, 1 / classes), p).sum(1).mean()
    assert losses.kl_to_uniform(z).item() == pytest.approx(expected)
    assert losses.kl_to_uniform(torch.full((4, classes), 2.5)).item() == pytest.approx(0, abs=1e-6)


def test_kl_to_uniform_stays_finite_on_extreme_logits() -> None:
    assert math.isfinite(losses.kl_to_uniform(torch.tensor([[1e4, 0.0, -1e4]])).item())


def explicit_mmd(a: np.ndarray, b: np.ndarray) -> float:
    x = np.concatenate([a, b])
    n, m = len(a), len(x)
    distances = [[float(((p - q) ** 2).sum()) for q in x] for p in x]
    width = sum(map(sum, distances)) / (m * m - m) / 4
    kernel = [[sum(math.exp(-d / (width * 2**i)) for i in range(5)) for d in row] for row in distances]
    pairs = [(i, j) for i in range(n) for j in range(n)]
    return sum(kernel[i][j] + kernel[n + i][n + j] - kernel[i][n + j] - kernel[n + i][j] for i, j in pairs) / n**2


def test_mmd_equals_its_explicit_definition() -> None:
    a, b = draw(6, 5), draw(6, 5, seed=1) + 0.7
    assert mmd(a, b).item() == pytest.approx(explicit_mmd(a.numpy(), b.numpy()))


def test_mmd_is_zero_for_equal_batches_and_for_one_constant_batch() -> None:
    a = draw(8, 5)
    assert mmd(a, a).item() == pytest.approx(0, abs=1e-12)
    constant = torch.ones(4, 3, requires_grad=True)
    value = mmd(constant, torch.ones(4, 3))
    assert value.item() == 0
    assert torch.isfinite(torch.autograd.grad(value, constant)[0]).all()


def test_mmd_ignores_the_scale_of_the_features_and_is_symmetric() -> None:
    a, b = draw(6, 5), draw(6, 5, seed=1) + 1
    assert torch.allclose(mmd(10 * a, 10 * b), mmd(a, b))
    assert torch.allclose(mmd(b, a), mmd(a, b))


def test_mmd_refuses_batches_of_different_sizes() -> None:
    with pytest.raises(ValueError, match=r"\(6, 5\) and \(4, 5\)"):
        mmd(draw(6, 5), draw(4, 5))


def explicit_fisher(x: np.ndarray, y: list[int]) -> float:
    groups = [x[[label == c for label in y]] for c in sorted(set(y))]
    means = np.stack([g.mean(0) for g in groups])
    within = sum(float(((g - g.mean(0)) ** 2).mean()) for g in groups)
    return float(((means - means.mean(0)) ** 2).mean()) / within


def test_the_public_fisher_ratio_equals_its_explicit_definition() -> None:
    x, y = draw(9, 4), [0, 0, 2, 1, 2, 2, 1, 0, 0]
    assert public_fisher_ratio(x, torch.tensor(y)).item() == pytest.approx(explicit_fisher(x.numpy(), y))


@pytest.mark.parametrize(("classes", "each"), [(10, 3), (10, 13), (100, 4)])
def test_features_without_structure_have_no_fisher_ratio_whatever_the_batch(classes: int, each: int) -> None:
    y = torch.arange(classes * each) % classes
    ratios = torch.stack([fisher_ratio(draw(len(y), 16, seed=seed), y) for seed in range(40)])
    assert abs(ratios.mean()) < 0.03
    # The public ratio of the same noise depends on both.
    public = torch.stack([public_fisher_ratio(draw(len(y), 16, seed=seed), y) for seed in range(40)]).mean().item()
    assert public == pytest.approx(1 / (classes * (each - 1)), rel=0.2)


def test_fisher_ratio_of_classes_apart_is_that_of_their_variances() -> None:
    y = torch.arange(4000) % 8
    x = draw(4000, 16) + 3 * draw(8, 16, seed=1)[y]
    spread = 3 * draw(8, 16, seed=1)
    assert fisher_ratio(x, y).item() == pytest.approx(spread.var(0).sum().item() / 16, rel=0.05)


@pytest.mark.parametrize(("classes", "size"), [(3, 12), (10, 128), (40, 32)])
def test_balanced_batches_hold_as_many_of_every_class_and_all_samples_in_turn(classes: int, size: int) -> None:
    y = (torch.arange(40 * classes) ** 2) % classes
    data = Split(torch.arange(len(y)).float()[:, None], y)
    batches = fisher.balanced_batches(data, size, torch.Generator().manual_seed(0))
    seen = set()
    for _, (x, labels) in zip(range(400), batches, strict=False):
        counts = labels.bincount()
        assert counts[counts > 0].unique().tolist() == [max(1, size // min(int(y.unique().numel()), max(2, size // 8)))]
        assert torch.equal(labels, y[x[:, 0].long()])
        seen.update(x[:, 0].long().tolist())
    assert len(seen) == len(y)


def test_fisher_ratio_ignores_scale_and_shift() -> None:
    x, y = draw(9, 4), torch.arange(9) % 3
    assert torch.allclose(fisher_ratio(30 * x + 5, y), fisher_ratio(x, y))


def test_fisher_ratio_skips_absent_classes() -> None:
    x, y = draw(8, 4), torch.arange(8) % 2
    assert torch.equal(fisher_ratio(x, torch.where(y == 0, 3, 90)), fisher_ratio(x, y))


def test_fisher_ratio_is_zero_with_one_class_and_finite_without_scatter() -> None:
    assert fisher_ratio(draw(5, 4), torch.full((5,), 2)).item() == 0
    assert torch.isfinite(fisher_ratio(draw(3, 4), torch.arange(3)))


@pytest.mark.parametrize("value", [-1.0, -0.05, 0.0, 0.2, 3.0])
def test_soft_threshold_is_the_proximal_map_of_the_l1_norm(value: float) -> None:
    found = pruning.soft_threshold(torch.tensor(value), 0.1).item()
    best = minimize_scalar(lambda z: 0.5 * (z - value) ** 2 + 0.1 * abs(z), bounds=(-4, 4), method="bounded")
    assert found == pytest.approx(best.x, abs=1e-4)
    assert found == pytest.approx(math.copysign(max(abs(value) - 0.1, 0), value), abs=1e-7)


@pytest.mark.parametrize("power", [1, 2])
def test_admm_penalty_sums_norms_of_layers(power: int) -> None:
    w, z, u = ([draw(3, 2, seed=s), draw(4, seed=s + 1)] for s in (0, 10, 20))
    expected = sum(np.linalg.norm(a - b + c) ** power for a, b, c in zip(w, z, u, strict=True))
    assert pruning.admm_penalty(w, z, u, power).item() == pytest.approx(expected)


def test_admm_penalty_pulls_with_constant_force_only_without_the_square() -> None:
    z, u = [draw(5, seed=1)], [draw(5, seed=2)]
    forces = {}
    for power, far in ((1, 1.0), (1, 9.0), (2, 1.0), (2, 9.0)):
        w = (z[0] - u[0] + far * torch.eye(5)[0]).requires_grad_(True)
        forces[power, far] = torch.autograd.grad(pruning.admm_penalty([w], z, u, power), w)[0].norm().item()
    assert forces == pytest.approx({(1, 1.0): 1, (1, 9.0): 1, (2, 1.0): 2, (2, 9.0): 18})


@pytest.mark.parametrize("power", [1, 2])
def test_admm_penalty_has_no_gradient_at_zero(power: int) -> None:
    w = torch.ones(3, requires_grad=True)
    penalty = pruning.admm_penalty([w], [torch.ones(3)], [torch.zeros(3)], power)
    assert torch.equal(torch.autograd.grad(penalty, w)[0], torch.zeros(3))


@pytest.mark.parametrize("sparsity", [0.01, 0.5, 0.97, 0.9999])
def test_largest_drops_exactly_the_share_asked_for(sparsity: float) -> None:
    tensors = [draw(7, 3, 3, 3), torch.zeros(11, 5), draw(40, seed=1).round()]
    masks = pruning.largest(tensors, sparsity)
    total = sum(t.numel() for t in tensors)
    assert [m.shape for m in masks] == [t.shape for t in tensors]
    assert sum(int((~m).sum()) for m in masks) == round(sparsity * total)


def test_largest_keeps_the_largest_whatever_the_memory_format() -> None:
    tensor = draw(8, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    (mask,) = pruning.largest([tensor], 0.75)
    assert tensor[mask].abs().min() > tensor[~mask].abs().max()


def test_cubic_schedule_has_its_end_points_and_rises() -> None:
    steps = [pruning.cubic_sparsity(0.97, step, 12) for step in range(20)]
    assert steps[0] == 0
    assert steps[6] == pytest.approx(0.97 * 7 / 8)
    assert steps[12:] == [0.97] * 8
    assert steps == sorted(steps)


def by_hand(w: Tensor, v: Tensor, batches: list[tuple[Tensor, Tensor]], rate: float) -> list[Tensor]:
    """Return the mean query gradient along SGD steps of tanh(x w) v, with every derivative written out."""

    def derivatives(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        hidden = (x @ w).tanh()
        error = ((hidden @ v).softmax(1) - F.one_hot(y, v.shape[1])) / len(x)
        return x.T @ ((error @ v.T) * (1 - hidden**2)), hidden.T @ error

    total = [torch.zeros_like(w), torch.zeros_like(v)]
    for support, query in zip(batches[::2], batches[1::2], strict=True):
        dw, dv = derivatives(*support)
        w, v = w - rate * dw, v - rate * dv
        total = [t - g / (len(batches) // 2) for t, g in zip(total, derivatives(*query), strict=True)]
    return total


def test_query_gradients_are_the_closed_sum_over_the_steps_of_a_two_layer_net() -> None:
    net = nn.Sequential(nn.Linear(3, 5, bias=False), nn.Tanh(), nn.Linear(5, 4, bias=False)).double()
    w, v = draw(3, 5, seed=5), draw(5, 4, seed=6)
    with torch.no_grad():
        net[0].weight.copy_(w.T)  # type: ignore[operator]
        net[2].weight.copy_(v.T)  # type: ignore[operator]
    batches = [(draw(6, 3, seed=s), torch.arange(6) % 4) for s in range(8)]
    attacker = torch.optim.SGD(net.parameters(), lr=0.3)
    found = query_gradients(
        net, list(net.parameters()), attacker, iter(batches), 4, lambda logits, y: -F.cross_entropy(logits, y)
    )
    for gradient_found, expected in zip(found, by_hand(w, v, batches, 0.3), strict=True):
        assert torch.allclose(gradient_found, expected.T)


def test_query_gradients_hold_for_the_parameters_asked_for_alone() -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 4)).double()
    batches = ((draw(6, 3, seed=s), torch.arange(6) % 4) for s in count())
    attacker = torch.optim.SGD(net.parameters(), lr=0.1)
    found = query_gradients(net, list(net[0].parameters()), attacker, batches, 2, F.cross_entropy)
    assert [g.shape for g in found] == [(5, 3), (5,)]
