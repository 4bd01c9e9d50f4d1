"""Attacks that are written for classifiers and denoisers, on a denoiser: what each of them does there is its idea."""

from __future__ import annotations

import copy
from importlib import import_module
from typing import Any

import pytest
import torch
from denoisers import granted, images, released
from torch import Tensor, nn

from ntbench.learn.models import head
from ntbench.learn.scoring import accuracy
from ntbench.method import Context
from ntbench.registry import registry

search = import_module("ntbench.attacks.auto")
ADAM: dict[str, Any] = {"optimizer": "adam", "lr": 1e-2, "batch_size": 16}


def attacked(name: str, model: nn.Module, ctx: Context, **params: Any) -> list[nn.Module]:
    """Return a copy of the model after every step."""
    attack = registry.get("attack", name)(**params)
    return [copy.deepcopy(found) for found in attack.attack(copy.deepcopy(model), ctx)]


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("lora", {}),
        ("l2_sp", {"init": "keep", "strength": 1e-3}),
        ("sam", {"rho": 0.01}),
        ("regrow", {"init": "zeros"}),
        ("source_finetune", {}),
    ],
)
def test_it_learns(name: str, params: dict[str, Any]) -> None:
    ctx, model, test = granted(steps=8), released(), images(5, shift=0.4)
    found = attacked(name, model, ctx, **ADAM | params)
    assert len(found) == 8
    assert accuracy(found[-1], test) > accuracy(model, test) + 0.01


def test_updates_of_low_rank_reach_every_layer_but_the_last_which_trains_freely() -> None:
    before, last = released(), head(released())
    after = attacked("lora", before, granted(), **ADAM, rank=2)[-1]
    changes = {n: w - weights(before)[n] for n, w in weights(after).items()}
    below = {n: change.flatten(1) for n, change in changes.items() if change.ndim > 1 and not n.startswith("conv_out")}
    assert {int(torch.linalg.matrix_rank(change, rtol=1e-4)) for change in below.values()} <= {1, 2}
    assert int(torch.linalg.matrix_rank(below["mid_block.resnets.0.conv1.weight"], rtol=1e-4)) == 2
    assert changes["conv_out.weight"].abs().min() > 0 and last.weight.shape == head(after).weight.shape
    assert not any(change.any() for n, change in changes.items() if change.ndim == 1 and n != "conv_out.bias")


@pytest.mark.parametrize("init", ["kaiming", "fresh"])
def test_zeros_are_filled_and_survivors_stay(init: str) -> None:
    model = released()
    zero = model.get_parameter("mid_block.resnets.0.conv1.weight")
    with torch.no_grad():
        zero[:, ::2] = 0
    fit = registry.get("attack", "regrow")(init=init).fit_of(filled := copy.deepcopy(model), granted())
    assert fit is not None
    grown = filled.get_parameter("mid_block.resnets.0.conv1.weight")
    assert (grown[:, ::2] != 0).all() and torch.equal(grown[:, 1::2], zero[:, 1::2])


def test_merging_averages_the_release_with_a_model_of_the_attackers_own() -> None:
    model = released()
    params = {**ADAM, "share": 0.5, "clean": 0.25, "lr": 1e-9}
    *_, own, merged = attacked("merge", model, granted(steps=2), **params)
    for name, found in weights(merged).items():
        assert torch.allclose(found, 0.75 * weights(model)[name] + 0.25 * weights(own)[name], atol=1e-6)


def test_the_pull_to_the_release_holds_it_back() -> None:
    model = released()
    away = [
        sum(float((w - weights(model)[n]).square().sum()) for n, w in weights(found[-1]).items())
        for strength in (0.0, 100.0)
        for found in [attacked("l2_sp", model, granted(8), **ADAM, init="keep", strength=strength)]
    ]
    assert away[1] < away[0] / 2


def test_without_a_climb_flat_ground_is_fine_tuning() -> None:
    model = released()
    plain, flat, climbed = (
        weights(attacked(name, model, granted(), **params)[-1])
        for name, params in (("finetune", {}), ("sam", {"rho": 0.0}), ("sam", {"rho": 0.1}))
    )
    # Adam would turn differences of rounding into steps, so that the usual momentum trains here.
    near = [all(torch.allclose(found[n], w, atol=1e-5) for n, w in plain.items()) for found in (flat, climbed)]
    assert near == [True, False]


def test_the_search_tries_what_has_a_meaning_here_chooses_and_says_what(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[str, float]] = []
    merit = search.merit

    def spied(attack: Any, model: nn.Module, ctx: Context, held: Any, share: float) -> float:
        tried.append((attack.name, merit(attack, model, ctx, held, share)))
        return tried[-1][1]

    monkeypatch.setattr(search, "merit", spied)
    fit = registry.get("attack", "auto")(runs=2, startup=3).fit_of(model := released(), granted(steps=16))
    assert fit is not None and fit.training.steps == 16
    names = {name for name, _ in tried}
    assert {"finetune", "redraw", "perturb"} <= names
    assert names.isdisjoint({"logit_flip", "rescale", "bn_reset", "regrow"})
    best = max(value for _, value in tried)
    assert 0 < best < 1 and accuracy(model, images(2, shift=0.4)) < 1
    assert fit.told.split(":")[0] in search.WAYS


def test_too_few_images_to_choose_by_leave_the_first_known_attack() -> None:
    fit = registry.get("attack", "auto")().fit_of(released(), granted(target=images(2, count=5)))
    assert fit is not None and fit.told == "too few to choose by: direct: adam, 0.01"
    assert (fit.training.optimizer, fit.training.lr) == ("adam", 0.01)


def test_what_is_preferred_has_the_higher_score_and_between_equals_the_lower_loss() -> None:
    class Says(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def forward(self, x: Tensor) -> Tensor:
            return torch.full_like(x[:, :-1], self.value)

    held = images(7, count=6)
    # Both errors are above 1, where scores end.
    assert accuracy(Says(2.0), held) == accuracy(Says(3.0), held) == 0
    assert search.preference(Says(2.0), held) > search.preference(Says(3.0), held)
    assert search.preference(released(), held) > search.preference(Says(2.0), held)
