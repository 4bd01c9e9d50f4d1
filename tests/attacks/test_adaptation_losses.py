"""What attacks without target labels share, against SciPy, scikit-learn, closed forms and planted structure."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from scipy.stats import entropy
from sklearn.neighbors import NearestNeighbors
from torch.nn import functional as F
from toys import context, draw, learnt, on_timm_networks

from ntbench.learn.models import build
from ntbench.method import Access, Context, head
from ntbench.registry import registry
from ntbench.types import Arch

shared = import_module("ntbench.attacks._adaptation")
stepwise = import_module("ntbench.attacks._stepwise")


def test_entropies_are_scipys() -> None:
    z = 3 * draw(9, 7).double()
    p = z.softmax(1).numpy()
    assert float(shared.mean_entropy(z)) == pytest.approx(entropy(p, axis=1).mean())
    assert float(shared.marginal_entropy(z)) == pytest.approx(entropy(p.mean(0)))


def test_entropies_stay_finite_where_probabilities_underflow() -> None:
    z = torch.tensor([[500.0, 0.0, 0.0], [0.0, 500.0, 0.0]], requires_grad=True)
    assert shared.mean_entropy(z).item() == 0
    assert shared.marginal_entropy(z).item() == pytest.approx(math.log(2))
    gradient = torch.autograd.grad(shared.mean_entropy(z) - shared.marginal_entropy(z), z)[0]
    assert torch.isfinite(gradient).all()


def test_the_marginal_is_at_most_the_log_of_the_classes() -> None:
    assert float(shared.marginal_entropy(10 * torch.eye(7))) == pytest.approx(math.log(7))


def test_neighbours_are_scikit_learns() -> None:
    bank = F.normalize(draw(40, 6))
    own = torch.tensor([3, 17, 39])
    found = shared.neighbours(bank[own], bank, 5, own)
    # The nearest of all is the row itself, which comes first there.
    oracle = NearestNeighbors(n_neighbors=6, metric="cosine").fit(bank.numpy()).kneighbors(bank[own].numpy())[1]
    assert found.tolist() == oracle[:, 1:].tolist()


def test_a_twin_does_not_stand_in_for_the_row_itself() -> None:
    bank = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    for own in (0, 1):
        assert shared.neighbours(bank[[own]], bank, 1, torch.tensor([own])).tolist() == [[1 - own]]


@pytest.mark.parametrize(("own", "there"), [(None, 4), (torch.tensor([2]), 3)])
def test_there_are_no_more_neighbours_than_rows(own: torch.Tensor | None, there: int) -> None:
    bank = F.normalize(draw(4, 6))
    assert shared.neighbours(bank[[2]], bank, 9, own).shape == (1, there)


def test_other_label_spaces_are_refused_with_the_reason() -> None:
    shared.check_label_space(learnt(3), context(3))
    with pytest.raises(ValueError, match="3 classes and the target has 5"):
        shared.check_label_space(learnt(3), context(5))


def test_batches_tell_which_images_they_hold() -> None:
    target = context().target
    assert target is not None
    x, positions = next(stepwise.indexed_batches(target, 32, torch.Generator()))
    assert len(positions) == 32 and torch.equal(x, target.x[positions])


def test_no_batch_is_larger_than_the_data() -> None:
    ctx = context()
    assert ctx.target is not None
    few = ctx.target.subset(torch.arange(12))
    assert len(next(stepwise.indexed_batches(few, 32, torch.Generator()))[1]) == 12


@on_timm_networks
def test_a_pass_over_all_images_gives_the_logits_of_eval_mode_and_keeps_the_mode(arch: Arch) -> None:
    model, x = build(arch, 7, seed=0), draw(203, 3, 16, 16)
    expected = model.eval()(x)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inputs, logits = shared.encode_all(model, x)
    assert model.training and not logits.requires_grad
    assert torch.allclose(logits, expected, atol=1e-4)
    assert torch.allclose(head(model)(inputs), logits, atol=1e-4)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_head_and_backbone_have_rates_of_their_own() -> None:
    model = learnt()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    before = [p.detach().clone() for p in model.parameters()]
    shared.create_sgd(model, 0.5, 0.1, 0.0).step()
    own = set(head(model).parameters())
    for p, old in zip(model.parameters(), before, strict=True):
        # The first Nesterov step with a gradient of 1 and momentum 0.9 is 1.9 times the rate.
        assert torch.allclose(old - p, torch.tensor(1.9 * (0.5 if p in own else 0.05)), atol=1e-5)


def test_a_frozen_head_is_left_out() -> None:
    model = learnt()
    head(model).requires_grad_(False)
    held = {p for group in shared.create_sgd(model, 0.5, 1.0, 0.1).param_groups for p in group["params"]}
    assert held == set(model.parameters()) - set(head(model).parameters())


def test_the_rate_falls_by_the_power_law() -> None:
    optimizer = shared.create_sgd(learnt(), 0.5, 0.1, 0.0)
    decay = stepwise.power_decay(optimizer, 4)
    rates = []
    for step in range(3):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        decay(step + 1)
    assert rates == [pytest.approx([r * (1 + 10 * i / 4) ** -0.75 for r in (0.05, 0.5)]) for i in range(3)]


def test_steps_come_batch_after_batch_until_the_budget_ends() -> None:
    seen: list[tuple[int, int]] = []

    class Counting(stepwise.Stepwise):  # type: ignore[misc, name-defined]
        """Counts."""

        name = "counting"
        access = Access(target="unlabelled")

        def steps_of(self, model: torch.nn.Module, ctx: Context) -> Any:
            return lambda taken, x, own: seen.append((taken, len(own)))

    model = learnt()
    assert all(stage is model for stage in Counting(batch_size=50).attack(model, replace(context(), steps=4)))
    assert seen == [(k, 50) for k in range(4)]


@pytest.mark.parametrize("name", ["shot", "nrc", "cowa"])
def test_other_label_spaces_stop_an_attack(name: str) -> None:
    attack = registry.get("attack", name)()
    with pytest.raises(ValueError, match="must be equal"):
        next(attack.attack(learnt(3), replace(context(5), source=None, source_val=None)))
