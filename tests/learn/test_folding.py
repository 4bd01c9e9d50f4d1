"""Folded batch norms: the same outputs, and the model itself where they cannot be folded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from learning import SMALL, data
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ntbench.learn.folding import folded
from ntbench.learn.models import build
from ntbench.learn.scoring import accuracy, validated
from ntbench.tasks.data import Split
from ntbench.types import Arch

CASES = {
    "cnns_bn": Arch(name="cnns_bn"),
    "shifted": Arch(name="cnns_bn", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)),
    "residual": Arch(name="test_resnet"),
    "norm with activation": Arch(name="test_efficientnet"),
    "vgg": Arch(name="vgg11_bn", params={"mlp_ratio": 0.01}),
}


def randomised(model: nn.Module) -> nn.Module:
    """Give batch norms statistics and weights as training leaves them."""
    torch.manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, _BatchNorm):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.1)
    return model.eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(layer, _BatchNorm) for layer in model.modules())


@torch.inference_mode()
@pytest.mark.parametrize("case", CASES)
def test_a_folded_network_answers_as_before_without_its_norms(case: str) -> None:
    model = randomised(build(CASES[case], 10, seed=0))
    x = torch.randn(20, 3, 32, 32)
    before, held = model(x), norms(model)
    light = folded(model, x[:4])
    assert held and norms(light) == 0
    assert (light(x) - before).abs().max() <= 1e-5 * before.abs().max()
    assert norms(model) == held and torch.equal(model(x), before), "the model itself stays as it is"


class Twice(nn.Module):
    """Sends what it gets through one convolution twice, before and behind a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(self.conv(x))).mean((2, 3))  # type: ignore[no-any-return]


class Branching(Twice):
    """Asks for a value, which nobody can trace."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x if x.sum() > 0 else -x)).mean((2, 3))  # type: ignore[no-any-return]


class Bare(Twice):
    """Needs what goes into its batch norm in another place, too."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return (self.norm(x) + x).mean((2, 3))  # type: ignore[no-any-return]


class Doubling(Twice):
    """Has a convolution that a hook changes whenever it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv.register_forward_hook(lambda layer, inputs, output: 2 * output)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).mean((2, 3))  # type: ignore[no-any-return]


class Paired(Doubling):
    """Answers with two tensors."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x), x  # type: ignore[return-value]


@torch.inference_mode()
@pytest.mark.parametrize("kind", [Twice, Branching, Bare, Doubling, Paired, lambda: nn.Flatten()])
def test_what_cannot_be_folded_stays_as_it_is(kind: Callable[[], nn.Module]) -> None:
    model = randomised(kind())
    assert folded(model, torch.randn(4, 3, 8, 8)) is model


def test_scores_to_choose_by_are_close_to_exact_ones() -> None:
    images = torch.randn(300, 3, 16, 16)
    model = randomised(build(SMALL, 10, seed=0))
    # The labels that the model gives, some of them wrong: the exact score is known.
    with torch.no_grad():
        labels = model(images).argmax(1)
    labels[:60] = (labels[:60] + 1) % 10
    split = Split(images, labels)
    assert validated(model, split, "float32") == accuracy(model, split) == 0.8
    low = validated(model.train(), split, "bfloat16")
    assert abs(low - 0.8) <= 5 / 300 and model.training


def test_scores_in_low_precision_are_refused_as_exact_ones_are() -> None:
    model = build(SMALL, 10, seed=0)
    with torch.no_grad():
        model.get_classifier().weight.fill_(torch.inf)  # type: ignore[operator]
    with pytest.raises(FloatingPointError, match="logits are not finite"):
        validated(model, data(), "bfloat16")
