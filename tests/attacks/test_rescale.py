"""Networks of which the function stays while their weights change size."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from toys import TIMM, context, draw

from ntbench.learn.models import build
from ntbench.registry import registry
from ntbench.types import Arch

rescale = import_module("ntbench.attacks.rescale").rescale
shared = import_module("ntbench.attacks._rescaling")
ARCHS = (
    Arch(name="cnns_bn"),
    Arch(name="test_resnet"),
    Arch(name="test_efficientnet"),
    Arch(name="resnet18", params={"channels": (8, 16, 16, 32), "stem_width": 8}),
    Arch(name="regnetx_002"),
)
on_networks = pytest.mark.parametrize("arch", ARCHS, ids=lambda arch: arch.name)


class Vgg(nn.Sequential):
    """A norm-free and a normed stretch of convolutions in a row, as in VGG."""

    def __init__(self, normed: bool, classes: int = 3) -> None:
        layers: list[nn.Module] = []
        for a, b in ((3, 8), (8, 16), (16, 12)):
            layers += [nn.Conv2d(a, b, 3, padding=1), *([nn.BatchNorm2d(b)] if normed else []), nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(2)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, classes))


class Reused(nn.Module):
    """Convolutions of which one runs twice, one feeds a sum beside its norm, and one goes through a bent activation."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.summed, self.bent, self.last = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))
        self.norm_of_twice, self.norm_of_summed = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm_of_twice(self.twice(self.twice(x)))
        y = self.summed(torch.sigmoid(x))
        x = self.norm_of_summed(y).relu() + y
        logits: Tensor = self.last(nn.functional.silu(self.bent(x))).mean((2, 3))
        return logits


@torch.no_grad()
def disturbed(model: nn.Module) -> nn.Module:
    """Give filters other sizes, norms other statistics and weights of both signs, and return the model in eval mode."""
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, _BatchNorm):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_(std=0.1, generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            layer.weight.uniform_(-1, 1, generator=generator)
            layer.bias.normal_(std=0.1, generator=generator)
        elif isinstance(layer, nn.Conv2d):
            layer.weight.mul_(torch.rand(len(layer.weight), 1, 1, 1, generator=generator) * 3)
    return model.eval()


@torch.no_grad()
def difference(model: nn.Module, fresh: nn.Module, size: int) -> float:
    """Return by how much rescaling changes logits, relative to the largest one."""
    x = draw(6, 3, size, size)
    before = model(x)
    rescale(model, fresh, x[:1])
    return float((model(x) - before).abs().max() / before.abs().max())


@on_networks
def test_the_function_stays_and_filters_get_their_fresh_norms(arch: Arch) -> None:
    model, fresh = disturbed(build(arch, 7, seed=1)), build(arch, 7, seed=2)
    normed = shared.wiring(fresh, draw(1, 3, 32, 32)).normed
    assert difference(model, fresh, 32) < 1e-5
    assert normed
    for conv, _ in normed:
        ours, theirs = (shared.magnitude(m.get_submodule(conv)) for m in (model, fresh))
        assert torch.allclose(ours, theirs, rtol=1e-4)


@pytest.mark.parametrize("normed", [True, False])
def test_a_row_of_convolutions_is_wired_from_end_to_end(normed: bool) -> None:
    model, fresh = disturbed(Vgg(normed)), Vgg(normed)
    found = shared.wiring(fresh, draw(1, 3, 16, 16))
    expected = [("1", "4"), ("5", "8")] if normed else [("0", "3"), ("3", "6")]
    assert sorted(found.pairs) == expected
    assert sorted(found.normed) == ([("0", "1"), ("4", "5"), ("8", "9")] if normed else [])
    assert difference(model, fresh, 16) < 1e-5


def test_two_layers_end_equally_far_from_fresh_ones() -> None:
    layers = [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)]
    goals = torch.rand(8) + 0.5, torch.rand(8) + 0.5
    layers[0].weight.data[5] = 0.0
    before = [shared.magnitude(layers[0]), shared.magnitude(layers[1], 1)]
    shared.balance(*layers, goals)
    after = [shared.magnitude(layers[0]), shared.magnitude(layers[1], 1)]
    alive = torch.arange(8) != 5
    assert torch.allclose((after[0] / goals[0])[alive], (after[1] / goals[1])[alive], rtol=1e-4)
    assert torch.allclose(after[0][alive] * after[1][alive], before[0][alive] * before[1][alive], rtol=1e-4)
    assert torch.equal(after[1][5], before[1][5])


def test_only_layers_with_one_use_are_wired() -> None:
    model = Reused()
    found = shared.wiring(model, draw(1, 3, 8, 8))
    assert found.normed == [] and found.pairs == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_hides_no_layer(dtype: torch.dtype) -> None:
    model = build(ARCHS[0], 3, seed=0)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16), torch.no_grad():
        assert len(shared.wiring(model, draw(1, 3, 16, 16)).normed) == 3


def test_a_network_that_allows_no_scale_is_refused() -> None:
    attack: Any = registry.get("attack", "rescale")()
    with pytest.raises(ValueError, match="no convolution that can be rescaled"):
        next(attack.attack(build(TIMM[2], 3, seed=0), context(arch=TIMM[2])))


def test_networks_are_told_apart_before_anything_runs() -> None:
    attack: Any = registry.get("attack", "rescale")()
    assert attack.unfit(build(TIMM[2], 3, seed=0)) == "VisionTransformer has no convolution that can be rescaled"
    assert attack.unfit(build(ARCHS[0], 3, seed=0)) == "" and attack.unfit(Vgg(normed=False)) == ""
