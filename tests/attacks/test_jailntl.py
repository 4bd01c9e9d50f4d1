"""JailNTL: estimates from answers against analytic gradients, the count of questions, and what the disguise does."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from torch import Tensor, nn
from toys import context, draw, learnt

from ntbench.learn.meter import Meter
from ntbench.learn.models import BlackBox
from ntbench.learn.scoring import accuracy
from ntbench.method import Context, Split
from ntbench.registry import registry

questions = import_module("ntbench.attacks._questions")
networks = import_module("ntbench.attacks._disguise")
jailntl = import_module("ntbench.attacks.jailntl")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def granted(steps: int = 10) -> Context:
    ctx = context(shift=0.6)
    assert ctx.target is not None
    hidden = Split(ctx.target.x, torch.full_like(ctx.target.y, -1))
    return replace(ctx, target=hidden, steps=steps)


def attacked(ctx: Context, **params: Any) -> tuple[nn.Module, str, Meter]:
    attack = registry.get("attack", "jailntl")(**params).attack(BlackBox(learnt()), ctx)
    with Meter((3, 16, 16)) as meter:
        while True:
            try:
                model = next(attack)
            except StopIteration as end:
                return model, end.value, meter


def test_the_estimate_is_the_gradient_of_a_linear_function_on_average() -> None:
    weights, x = draw(4, 6), draw(4, 6, seed=1)

    def linear(x: Tensor) -> Tensor:
        return (x * weights).sum(1)

    found = questions.zeroth_order(linear, x, linear(x), 20_000, 1e-2, generator())
    assert torch.allclose(found, weights, atol=0.1)
    few = questions.zeroth_order(linear, x, linear(x), 5, 1e-2, generator())
    assert (few - weights).abs().max() > 0.3


def test_the_estimate_is_the_gradient_of_a_quadratic_at_every_row_on_average() -> None:
    root, x = draw(5, 5).double(), draw(3, 5, seed=1).double()
    matrix = root @ root.T

    def quadratic(x: Tensor) -> Tensor:
        return ((x @ matrix) * x).sum(1)

    found = questions.zeroth_order(quadratic, x, quadratic(x), 40_000, 1e-4, generator()).double()
    assert torch.allclose(found, 2 * x @ matrix, atol=0.05 * (2 * x @ matrix).norm())


def test_the_public_estimate_says_the_same_at_every_pixel_and_is_clipped() -> None:
    x = draw(2, 3, 4, 4)
    small = questions.pseudo_gradient(lambda x: torch.tensor(0.5), x, 3, 1e-2, generator())
    large = questions.pseudo_gradient(lambda x: torch.tensor(0.5), x, 3, 1e-4, generator())
    assert torch.allclose(small, torch.full_like(x, -50 / x.numel()))
    assert torch.allclose(large, torch.full_like(x, -100 / x.numel()))


def test_questions_are_counted_in_images_and_end_at_the_limit() -> None:
    asked = questions.Questions(learnt().eval(), 450)
    x = draw(440, 3, 8, 8)
    assert asked(x).shape == (440, 3) and not asked(x[:10]).requires_grad
    assert asked.count == 450 and not asked.affords(1) and asked.affords(0)
    with pytest.raises(ValueError, match=r"450 images asked and 1 more .* limit of 450"):
        asked(x[:1])
    assert questions.Questions(learnt()).affords(10**9)


def test_an_attack_asks_about_what_it_says_and_keeps_to_its_limit() -> None:
    ctx = granted()
    steps, batch, owned = 10, 32, 120
    assert attacked(ctx, directions=4)[1] == f"{owned + steps * batch * 5} questions"
    assert attacked(ctx, directions=4, queries=owned + 3 * batch * 5 + 7)[1] == f"{owned + 3 * batch * 5} questions"
    assert attacked(ctx, directions=4, estimate="public")[1] == f"{owned + steps * batch * 4} questions"


def test_the_gaps_are_those_of_scipys_entropies() -> None:
    answers, real = draw(7, 4), 3 * draw(9, 4, seed=1)
    chances = [softmax(z.double().numpy(), 1) for z in (answers, real)]
    surer = abs(np.subtract(*(entropy(p, axis=1).mean() for p in chances)))
    broader = abs(np.subtract(*(entropy(p.mean(0)) for p in chances)))
    assert jailntl.output_gaps(answers, real, 2.0, 0.0).item() == pytest.approx(2 * surer, rel=1e-4)
    assert jailntl.output_gaps(answers, real, 1.0, 3.0).item() == pytest.approx(surer + 3 * broader, rel=1e-4)
    assert jailntl.output_gaps(real, real, 1.0, 1.0).item() == 0


def test_guidance_points_where_autograd_points() -> None:
    model, made, real = learnt().eval(), draw(4, 3, 16, 16), draw(6, 3, seed=2)
    attack = registry.get("attack", "jailntl")(directions=4000, epsilon=1e-3)
    found = attack._push(questions.Questions(model), made, real, generator())
    x = made.clone().requires_grad_()
    (true,) = torch.autograd.grad(jailntl.output_gaps(model(x), real, attack.entropy, attack.balance), x)
    assert torch.cosine_similarity(found.flatten(), true.flatten(), dim=0) > 0.7
    assert found.norm().item() == pytest.approx(true.norm().item(), rel=0.4)


@pytest.mark.parametrize("size", [8, 17, 32])
def test_a_disguise_begins_as_the_identity_and_works_image_by_image(size: int) -> None:
    disguise = networks.Disguise(4, 2, generator())
    x = draw(3, 3, size, size).clamp(-1, 1)
    assert torch.equal(disguise(x), x)
    nn.init.normal_(disguise.paint.weight, generator=generator(1))
    changed = disguise(x).detach()
    assert (changed - x).abs().max() > 0.1 and changed.abs().max() <= 1
    assert torch.allclose(disguise(x[:1]), changed[:1], atol=1e-5)
    assert networks.Critic(4, generator())(x).shape == (3, 1, (size + 1) // 2, (size + 1) // 2)


def test_in_the_game_each_side_moves_itself_alone() -> None:
    critic, made, real = networks.Critic(4, generator()), draw(2, 3, 8, 8).requires_grad_(), draw(2, 3, 8, 8, seed=1)
    networks.game(critic, made, real, 0.0).backward()
    judged = [p.grad.clone() for p in critic.parameters()]
    assert made.grad is None or not made.grad.any()
    critic.zero_grad()
    networks.game(critic, made, real, 5.0).backward()
    assert made.grad is not None and made.grad.any()
    assert all(torch.equal(p.grad, before) for p, before in zip(critic.parameters(), judged, strict=True))
    assert all(p.requires_grad for p in critic.parameters())


def test_source_images_pass_and_the_budget_holds() -> None:
    ctx = granted(steps=40)
    assert ctx.source_val is not None
    model, _, meter = attacked(ctx)
    assert accuracy(model, ctx.source_val) > accuracy(learnt(), ctx.source_val) - 0.05
    assert meter.cost.steps == 40 and meter.cost.samples > 40 * 2 * 32
    assert {name.split(".")[0] for name in model.state_dict()} == {"0"}


def test_images_are_disguised_as_source_images() -> None:
    ctx = granted(steps=40)
    assert ctx.target is not None and ctx.source is not None
    disguise = attacked(ctx, adversarial=3.0, content=0.1, guidance=0.0)[0].get_submodule("0")
    with torch.no_grad():
        before, after = (x.mean(0) - ctx.source.x.mean(0) for x in (ctx.target.x, disguise(ctx.target.x)))
    assert after.norm() < before.norm()
