"""Denoising: the noise of closed forms, a score that any error can be worked out from, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ntbench.errors import UserError
from ntbench.learn.scoring import accuracy, correct
from ntbench.registry import is_ours, registry
from ntbench.tasks.data import Split, learnt, load_domain
from ntbench.tasks.denoising import GRID, Denoising, noisy
from ntbench.tasks.objective import objective_of
from ntbench.types import ObjectiveSpec

BETAS = np.linspace(1e-4, 0.02, 1000)
ALPHA_BAR = np.cumprod(1 - BETAS)


class Shrunk(nn.Module):
    """Knows the noise of black images, and says a share of it."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        t = x[:, -1, 0, 0].long()
        scale = torch.tensor(np.sqrt(1 - ALPHA_BAR))[t].float()
        return self.share * x[:, :-1] / scale[:, None, None, None]


def black(count: int = 12, **params: Any) -> Split:
    return Split(torch.zeros(count, 1, 4, 4), torch.zeros(count, dtype=torch.long), objective=Denoising(**params))


def test_noise_is_that_of_the_linear_schedule_with_the_time_step_as_a_plane() -> None:
    x, noise = torch.full((2, 3, 4, 4), 0.5), torch.ones(2, 3, 4, 4)
    found = noisy(x, noise, torch.tensor([0, 700]))
    assert found.shape == (2, 4, 4, 4)
    for i, t in enumerate((0, 700)):
        value = math.sqrt(ALPHA_BAR[t]) * 0.5 + math.sqrt(1 - ALPHA_BAR[t])
        assert found[i, :3].numpy() == pytest.approx(np.full((3, 4, 4), value), rel=1e-4)
        assert (found[i, 3] == t).all()


def test_the_score_is_the_log_of_the_error_over_that_of_the_best() -> None:
    data = black(channels=1, best=0.01)
    generator = torch.Generator().manual_seed(0)
    squares = [torch.randn(12, 1, 4, 4, generator=generator).double().square().mean(dim=(1, 2, 3)) for _ in range(GRID)]
    error = 0.3**2 * torch.stack(squares).mean(dim=0)
    each = correct(Shrunk(0.7), data)
    score = math.log(float(error.mean())) / math.log(0.01)
    assert accuracy(Shrunk(0.7), data) == pytest.approx(score, rel=1e-4)
    # The delta method: the spread of what images add is that of the jackknife.
    left_out = [math.log((error.sum() - e) / 11) / math.log(0.01) for e in error.tolist()]
    jackknife = math.sqrt(11 / 12 * sum((s - np.mean(left_out)) ** 2 for s in left_out))
    assert float(each.std() / math.sqrt(12)) == pytest.approx(jackknife, rel=0.1)


@pytest.mark.parametrize(("share", "score"), [(-0.5, 0.0), (0.99, 1.0)])
def test_worse_than_nothing_scores_0_and_better_than_the_best_1(share: float, score: float) -> None:
    assert correct(Shrunk(share), black(channels=1, best=0.5)).tolist() == [score] * 12


def test_batches_hold_noisy_images_at_the_asked_time_steps_and_their_noise() -> None:
    data = black(64, channels=1, times=(100, 110))
    x, noise = next(data.batches(64, torch.Generator().manual_seed(0)))
    t = x[:, -1, 0, 0].long()
    assert x.shape == (64, 2, 4, 4) and data.shown == (2, 4, 4)
    assert set(t.tolist()) == set(range(100, 110))
    assert Shrunk(1.0)(x).numpy() == pytest.approx(noise.numpy(), abs=1e-5)
    assert abs(float(noise.mean())) < 0.1 and abs(float(noise.std()) - 1) < 0.1


def test_a_domain_has_one_channel_no_labels_and_its_own_reference() -> None:
    plain = load_domain("digits", 8)
    domain = learnt(plain, Denoising(channels=1, reference={"digits": 0.2}))
    assert domain.classes == 1 and domain.train.x.shape[1:] == (1, 8, 8) and not domain.train.y.any()
    assert domain.test.x.numpy() == pytest.approx(plain.test.x.mean(dim=1, keepdim=True).numpy(), abs=1e-6)
    assert domain.val.objective.spec.params["best"] == 0.2
    assert domain.digests == plain.digests


def test_an_anchor_is_the_error_behind_a_score() -> None:
    objective = Denoising(reference={"a": 0.1})
    assert objective.unanchored(["a", "b"]) == ["b"]
    found = objective.anchored({"b": 0.5}).spec.params["reference"]
    assert found == {"a": 0.1, "b": pytest.approx(1e-3**0.5, rel=1e-3)}


def spec_of(reference: dict[str, float], **params: int) -> ObjectiveSpec:
    return ObjectiveSpec(name="denoising", params={"reference": reference, **params})


def test_a_recipe_says_of_other_domains_nothing() -> None:
    spec = spec_of({"a": 0.1, "b": 0.2, "c": 0.3}, channels=1)
    assert spec.on(["c", "a", "d"]) == spec_of({"a": 0.1, "c": 0.3}, channels=1)
    assert ObjectiveSpec().on(["a"]) == ObjectiveSpec()
    bare = ObjectiveSpec(name="denoising", params={"channels": 1})
    assert bare.on(["a"]) == bare


def test_two_recipes_agree_where_they_say_the_same_of_what_both_know() -> None:
    ab, bc = spec_of({"a": 0.1, "b": 0.2}), spec_of({"b": 0.2, "c": 0.3})
    assert ab.joined(bc) == bc.joined(ab) == spec_of({"a": 0.1, "b": 0.2, "c": 0.3})
    assert ab.joined(spec_of({"b": 0.21})) is None
    assert ab.joined(spec_of({"c": 0.3}, channels=1)) is None
    assert ab.joined(ObjectiveSpec()) is None
    assert ObjectiveSpec().joined(ObjectiveSpec()) == ObjectiveSpec()


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (ObjectiveSpec(name="denoise"), "denoising"),
        (ObjectiveSpec(name="denoising", params={"times": [5, 5]}), "must rise"),
        (ObjectiveSpec(name="denoising", params={"channels": 2}), "channels = 2"),
        (ObjectiveSpec(name="denoising", params={"reference": {"digits": 1.5}}), "reference.digits = 1.5"),
        (ObjectiveSpec(name="classification", params={"channels": 1}), "channels"),
    ],
)
def test_mistakes_name_the_value_and_the_remedy(spec: ObjectiveSpec, told: str) -> None:
    with pytest.raises(UserError, match=told):
        objective_of(spec)


@pytest.mark.parametrize(
    ("kind", "name", "params", "told"),
    [
        ("attack", "finetune", {"scope": "head"}, "no classifier"),
        ("attack", "finetune", {"init": "whole"}, "no classifier"),
        ("attack", "finetune", {"augment": "weak"}, "leave `augment` out"),
        ("attack", "shot", {}, "written for classification, not for denoising"),
        ("defense", "sophon", {}, "written for classification, not for denoising"),
        ("attack", "shot", {}, "a denoiser predicts none"),
        ("attack", "logit_flip", {}, "no logits"),
        ("defense", "mlac", {}, "a denoiser's images have none"),
        ("defense", "sophon", {}, "sophon_generation has its idea"),
        ("defense", "ntp", {}, "ntp_generation"),
        ("attack", "lora", {"augment": "weak"}, "leave `augment` out"),
        ("attack", "lora", {}, ""),
        ("defense", "pmp", {}, ""),
        ("attack", "finetune", {"init": "reinit"}, ""),
        ("defense", "magnitude", {}, ""),
        ("defense", "sophon_generation", {}, ""),
    ],
)
def test_what_has_no_meaning_here_is_refused_with_the_reason(kind: Any, name: str, params: Any, told: str) -> None:
    found = Denoising().refuses(registry.get(kind, name)(**params))
    assert told in found and bool(told) == bool(found)


def test_classification_refuses_what_is_written_for_denoising() -> None:
    method = registry.get("defense", "ntl_generation")()
    assert "denoising, not for classification" in objective_of(ObjectiveSpec()).refuses(method)


def test_an_answer_that_is_not_the_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="not the noise"):
        correct(nn.Flatten(), black(channels=1))
    with pytest.raises(FloatingPointError, match="not finite"):
        correct(Shrunk(math.nan), black(channels=1))


class Knows(nn.Module):
    """Knows the noise in what was a grey image."""

    def forward(self, x: Tensor) -> Tensor:
        bar = torch.tensor(ALPHA_BAR)[x[:, -1, 0, 0].long()].float()[:, None, None, None]
        return (x[:, :-1] - bar.sqrt() * 0.25) / (1 - bar).sqrt()


def test_a_model_that_knows_the_noise_makes_the_image_and_the_same_noise_the_same_image() -> None:
    objective, device = Denoising(channels=1), torch.device("cpu")
    made = objective.made(Knows(), 5, 4, device)
    assert made is not None and made.shape == (5, 1, 4, 4)
    assert made.numpy() == pytest.approx(np.full((5, 1, 4, 4), 0.25), abs=1e-3)
    some, again = (objective.made(Shrunk(0.5), 5, 4, device) for _ in range(2))
    assert some is not None and again is not None
    assert torch.equal(some, again) and not torch.equal(some[0], some[1])


def test_classifiers_make_no_images() -> None:
    assert objective_of(ObjectiveSpec()).made(nn.Identity(), 5, 4, torch.device("cpu")) is None


def test_every_method_of_ours_that_does_not_carry_over_says_why() -> None:
    known = [registry.get(kind, name) for kind in ("defense", "attack") for name in registry.names(kind)]
    told = [Denoising().refuses(method) for method in known if is_ours(method)]
    written = [said for said in told if "is written for classification" in said]
    assert len(written) > 20 and all(": " in said for said in written)
