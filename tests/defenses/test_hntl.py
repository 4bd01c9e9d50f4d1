"""H-NTL: the losses of both stages, their switches, and what comes out on small synthetic domains."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F
from toys import context, defense, domain, draw, learnt, on_timm_networks, under_global_seeds

from ntbench.learn.models import head, pack
from ntbench.learn.scoring import accuracy
from ntbench.method import Context
from ntbench.types import Arch

parts = import_module("ntbench.defenses._factors")
Batch = tuple[Tensor, Tensor]
CHEAP: dict[str, Any] = {"steps": 4, "distil_steps": 4, "latent": 8, "width": 4, "tolerance": 1.0}


def method(**params: Any) -> Any:
    return defense("hntl", **params)


@pytest.fixture
def model() -> nn.Module:
    return learnt()


@pytest.fixture
def batch() -> tuple[Batch, Batch]:
    source, target = domain(3, seed=4, count=6), domain(3, seed=5, count=6, shift=0.4)
    return (source.x, source.y), (target.x, target.y)


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def factors_of(model: nn.Module, ctx: Context, **params: Any) -> Any:
    return method(**CHEAP | params)._factors(model, ctx).eval()


def test_kl_is_the_closed_form_in_nats() -> None:
    mean, log_variance = draw(5, 7), draw(5, 7, seed=1)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(parts.kl_to_standard((mean, log_variance)), expected, atol=1e-5)
    assert torch.equal(parts.kl_to_standard((torch.zeros(2, 3), torch.zeros(2, 3))), torch.zeros(2))


def test_samples_have_the_mean_and_the_variance_and_pass_gradients_on() -> None:
    mean = torch.full((20000, 1), 2.0, requires_grad=True)
    log_variance = torch.full((20000, 1), 1.0, requires_grad=True)
    drawn = parts.sample((mean, log_variance), noise())
    assert drawn.mean().item() == pytest.approx(2.0, abs=0.05)
    assert drawn.var().log().item() == pytest.approx(1.0, abs=0.05)
    to_mean, to_variance = torch.autograd.grad(drawn.sum(), (mean, log_variance))
    assert torch.equal(to_mean, torch.ones_like(mean))
    assert torch.allclose(to_variance, (drawn - mean).detach() / 2, atol=1e-5)


@pytest.mark.parametrize(("classes", "same"), [(3, True), (5, False)])
def test_domains_share_a_classifier_where_the_class_counts_agree(model: nn.Module, classes: int, same: bool) -> None:
    factors = factors_of(model, context(target_classes=classes))
    assert (factors.classify is factors.classify_target) is same
    assert factors.classify_target.out_features == classes


def test_encoders_start_where_they_are_told_to(model: nn.Module) -> None:
    ctx = context()
    for encoders, start in (("pretrained", model), ("fresh", ctx.fresh(3))):
        factors = factors_of(model, ctx, encoders=encoders)
        for network in (factors.content.network, factors.style.network):
            assert network is not model
            assert all(torch.equal(a, b) for a, b in zip(network.parameters(), start.parameters(), strict=True))


def disentangled(model: nn.Module, batch: tuple[Batch, Batch], **params: Any) -> Tensor:
    loss: Tensor = method(**CHEAP | params)._disentangle(factors_of(model, context()), noise(), *batch)
    return loss


def test_stage_one_is_the_sum_of_its_terms(model: nn.Module, batch: tuple[Batch, Batch]) -> None:
    (xs, ys), (xt, yt) = batch
    factors, chance = factors_of(model, context()), noise()
    x = torch.cat([xs, xt])
    posteriors = factors.content(x), factors.style(x)
    content, style = (parts.sample(p, chance) for p in posteriors)
    labels = F.cross_entropy(factors.classify(content), torch.cat([ys, yt]))
    domains = F.cross_entropy(factors.tell_domain(style), torch.tensor([0] * 6 + [1] * 6))
    decoded = factors.decoder(torch.cat([content, style], 1)).sigmoid()
    kl = [parts.kl_to_standard(p) for p in posteriors]
    plain = labels + domains
    expected = {
        ("mean", "pixels"): (kl[0].mean() + kl[1].mean(), ((decoded - (x + 1) / 2) ** 2).mean()),
        ("sum", "normalised"): (0.02 * (kl[0].sum() + kl[1].sum()), ((decoded - x) ** 2).mean()),
    }
    for (reduction, wanted), (cost, error) in expected.items():
        found = disentangled(
            model, batch, content="both", kl=reduction, reconstruct=wanted, kl_weight=0.3, reconstruction=0.7
        )
        assert torch.allclose(found, plain + 0.3 * cost + 0.7 * error, atol=1e-4)


@pytest.mark.parametrize(("content", "tells"), [("source", False), ("both", True)])
def test_the_honest_content_teacher_never_sees_the_target(
    model: nn.Module, batch: tuple[Batch, Batch], content: str, tells: bool
) -> None:
    factors, hntl = factors_of(model, context()), method(**CHEAP, content=content)
    seen: list[Tensor] = []
    factors.content.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    source, (xt, yt) = batch
    losses = [hntl._disentangle(factors, noise(), source, (xt, y)) for y in (yt, yt.roll(1))]
    assert bool(losses[0] != losses[1]) is tells
    assert any(len(x) > len(source[0]) for x in seen) is tells


def test_public_kl_is_a_hundredth_of_the_batch_sum_without_the_half(
    model: nn.Module, batch: tuple[Batch, Batch]
) -> None:
    factors = factors_of(model, context())
    x = torch.cat([batch[0][0], batch[1][0]])
    mean, log_variance = torch.cat([torch.stack(net(x)) for net in (factors.content, factors.style)], 1)
    public = -0.01 * (1 + log_variance - mean**2 - log_variance.exp()).sum()
    without, with_sum = (
        disentangled(model, batch, content="both", kl="sum", kl_weight=weight) for weight in (0.0, 1.0)
    )
    assert torch.allclose(with_sum - without, public, rtol=1e-3)


def test_stage_two_teaches_content_on_source_and_style_on_target(model: nn.Module, batch: tuple[Batch, Batch]) -> None:
    (xs, _), (xt, _) = batch
    factors = factors_of(model, context())
    student = model.eval()
    content, style = factors.classify(factors.content(xs)[0]), factors.classify(factors.style(xt)[0])
    expected = F.mse_loss(student(xs), content) + F.mse_loss(student(xt), style)
    loss = method(**CHEAP)._distil(student, factors, noise(), *batch)
    assert torch.allclose(loss, expected, atol=1e-5)
    loss.backward()
    assert all(p.grad is None for p in factors.parameters())
    assert all(p.grad is not None for p in student.parameters())


@pytest.mark.parametrize(("teacher", "moves"), [("mean", False), ("sample", True)])
def test_teachers_give_their_means_unless_told_to_draw(
    model: nn.Module, batch: tuple[Batch, Batch], teacher: str, moves: bool
) -> None:
    factors, hntl = factors_of(model, context()), method(**CHEAP, teacher=teacher)
    losses = [hntl._distil(model.eval(), factors, noise(seed), *batch) for seed in (0, 1)]
    assert bool(losses[0] != losses[1]) is moves


def test_the_target_is_lost_and_the_source_is_kept(model: nn.Module) -> None:
    ctx = context()
    assert ctx.target is not None and ctx.source_val is not None
    start, before = accuracy(model, ctx.source_val), accuracy(model, ctx.target)
    released = method(steps=60, distil_steps=80, latent=16, width=4).protect(model, ctx)
    assert accuracy(released, ctx.source_val) >= start - 0.02
    assert accuracy(released, ctx.target) < before - 0.3


@pytest.mark.parametrize("target_classes", [2, 3, 5])
def test_any_number_of_target_classes_leaves_the_source_head(model: nn.Module, target_classes: int) -> None:
    released = method(**CHEAP).protect(model, context(target_classes=target_classes))
    assert head(released).out_features == 3
    assert pack(released)


@pytest.mark.parametrize("switch", [{}, {"encoders": "fresh", "kl": "sum"}, {"teacher": "sample"}])
def test_the_seed_of_the_context_alone_decides(switch: dict[str, Any]) -> None:
    def released(ctx: Context) -> list[Tensor]:
        hntl = method(**CHEAP, **switch)
        return [w["head.weight"] for w in under_global_seeds(lambda: hntl.protect(learnt(), ctx))]

    first, again = released(context())
    assert torch.equal(first, again)
    assert not torch.equal(first, released(replace(context(), seed=1))[0])


@on_timm_networks
def test_any_timm_network_is_protected(arch: Arch) -> None:
    ctx = context(5, arch=arch)
    model = ctx.fresh(3)
    released = method(**CHEAP).protect(model, ctx)
    assert released is model
    assert pack(released).keys() == pack(ctx.fresh(3)).keys()
    assert all(p.requires_grad for p in released.parameters())


def test_a_lost_source_ends_with_the_value_and_the_remedy(model: nn.Module) -> None:
    lost = method(**CHEAP | {"steps": 1, "distil_steps": 60, "distil_lr": 3e-2, "tolerance": 0.0})
    with pytest.raises(ValueError, match="tolerance"):
        lost.protect(model, context())


BAD: list[dict[str, Any]] = [
    {"encoders": "imagenet"},
    {"content": "target"},
    {"kl": "batch"},
    {"reconstruct": "uint8"},
    {"teacher": "median"},
    {"latent": 0},
    {"kl_weight": -1.0},
    {"lr": 0.0},
    {"distil_steps": 0},
    {"tolerance": 1.5},
    {"disentangle": 0.08},
]


@pytest.mark.parametrize("params", BAD)
def test_bad_hyper_parameters_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(params))):
        method(**params)
