"""A score comes from plain finite logits, one row an image, and lies in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from learning import SMALL, data, generator
from sklearn.metrics import accuracy_score
from torch import Tensor, nn

from ntbench.learn.fit import fit
from ntbench.learn.models import build, pack
from ntbench.learn.scoring import accuracy, correct
from ntbench.tasks.objective import SCORING_BATCH
from ntbench.types import Training


class Saying(nn.Module):
    """Answers with what a function makes of plain logits."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(torch.eye(10)[torch.arange(len(x)) % 10])


class Lucky:
    """What looks like logits [n, 10] and claims to be right everywhere."""

    ndim = 2

    def __init__(self, count: int) -> None:
        self.shape = torch.Size([count, 10])

    def __len__(self) -> int:
        return self.shape[0]

    def argmax(self, dim: int) -> Any:
        return type("Right", (), {"__eq__": lambda own, y: torch.ones_like(y, dtype=torch.bool)})()


class Tagged(Tensor):
    """A tensor with a mind of its own."""


REFUSED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "trailing dimension": (lambda x: x[:, :, None].expand(-1, -1, 20), r"Tensor \(50, 10, 20\), not \[n, classes\]"),
    "a vector": (lambda x: x[:, 0], r"Tensor \(50,\), not \[n, classes\]"),
    "fewer rows": (lambda x: x[:1], r"Tensor \(1, 10\), not"),
    "more rows": (lambda x: x.repeat(2, 1), r"Tensor \(100, 10\), not"),
    "an object": (lambda x: Lucky(len(x)), r"Lucky \(50, 10\), not"),
    "a subclass": (lambda x: x.as_subclass(Tagged), r"Tagged \(50, 10\), not"),
    "a tuple": (lambda x: (x, x), r"50 images with tuple \(\), not"),
    "nothing": (lambda x: None, r"NoneType \(\), not"),
}


def test_accuracy_is_scikit_learns_and_leaves_the_model_as_it_was() -> None:
    model, split = build(SMALL, 10, seed=0), data(2 * SCORING_BATCH + 50, size=8)
    for _ in fit(model, split, Training(steps=5, lr=0.01), generator()):
        pass
    model.get_submodule("blocks.1").eval()
    modes = [module.training for module in model.modules()]
    before = pack(model)
    right, score = correct(model, split), accuracy(model, split)
    assert [module.training for module in model.modules()] == modes and {True, False} == set(modes)
    after = pack(model)
    assert all(torch.equal(before[key], after[key]) for key in before)
    with torch.no_grad():
        predicted = model.eval()(split.x).argmax(1)
    assert score == accuracy_score(split.y.numpy(), predicted.numpy())
    assert torch.equal(right, predicted == split.y) and right.dtype == torch.bool and right.device.type == "cpu"
    assert 0 < score < 1


def test_a_model_that_is_refused_is_left_in_its_modes() -> None:
    model = Saying(lambda x: None).train()
    with pytest.raises(ValueError, match="not"):
        accuracy(model, data(50, size=8))
    assert model.training


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_plain_tensor_of_logits_is_refused(name: str) -> None:
    answer, message = REFUSED[name]
    with pytest.raises(ValueError, match=f"the model answers 50 images with {message}|{message}"):
        correct(Saying(answer), data())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_are_a_divergence(value: float) -> None:
    def spoilt(x: Tensor) -> Tensor:
        x = x.clone()
        x[7, 3] = value
        return x

    with pytest.raises(FloatingPointError, match="the model's logits are not finite"):
        correct(Saying(spoilt), data())


def test_logits_of_more_classes_than_the_labels_have_are_no_mistake() -> None:
    split = data()
    right = correct(Saying(lambda x: torch.cat([x, torch.zeros(len(x), 5)], dim=1)), split)
    assert torch.equal(right, split.y == torch.arange(50) % 10)
