from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from ntbench.errors import UserError
from ntbench.learn.models import (
    build,
    check_device,
    features,
    head,
    pack,
    read_weights,
    reset_head,
    unpack,
    write_weights,
)
from ntbench.types import Arch

ARCHS = {
    "cnns_bn": (Arch(name="cnns_bn"), 16),
    "cnn_bn": (Arch(name="cnn_bn"), 16),
    "test_resnet": (Arch(name="test_resnet.r160_in1k"), 64),
    "test_vit": (Arch(name="test_vit.r160_in1k", params={"img_size": 32}), 32),
}
SMALL = ARCHS["cnns_bn"][0]


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def images(size: int, count: int = 4) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("name", ARCHS)
def test_a_model_depends_on_its_seed_alone(name: str) -> None:
    arch = ARCHS[name][0]
    torch.manual_seed(1)
    first = pack(build(arch, 10, seed=7))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = pack(build(arch, 10, seed=7))
    assert torch.equal(torch.get_rng_state(), state)
    assert same(first, second)
    assert not same(first, pack(build(arch, 10, seed=8)))


@pytest.mark.parametrize("name", ARCHS)
def test_the_head_on_the_features_is_the_model(name: str) -> None:
    arch, size = ARCHS[name]
    model = build(arch, 7, seed=0).eval()
    x = images(size)
    with torch.no_grad():
        found = features(model, x)
        assert found.shape == (4, head(model).in_features)
        torch.testing.assert_close(head(model)(found), model(x))
        assert model(x).shape == (4, 7)


@pytest.mark.parametrize("name", ARCHS)
def test_packed_weights_make_the_same_model_again(name: str) -> None:
    arch, size = ARCHS[name]
    model = build(arch, 10, seed=0)
    with torch.no_grad():
        model.train()(images(size))
    weights = pack(model)
    again = unpack(weights, build(arch, 10, seed=1))
    with torch.no_grad():
        assert torch.equal(again.eval()(images(size)), model.eval()(images(size)))
    assert same(pack(again), weights)


def test_packed_weights_are_copies() -> None:
    model = build(SMALL, 10, seed=0)
    weights = pack(model)
    with torch.no_grad():
        head(model).weight.fill_(3.0)
    assert not (weights["head.weight"] == 3.0).any()
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in weights.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["head.bias", "blocks.0.1.running_var"])
def test_weights_that_are_not_finite_are_refused(name: str, value: float) -> None:
    model = build(SMALL, 10, seed=0)
    model.state_dict()[name][0] = value
    with pytest.raises(FloatingPointError, match=rf"'{name}' are not finite"):
        pack(model)


def renamed(weights: dict[str, Tensor]) -> None:
    weights["head.wait"] = weights.pop("head.weight")


def lacking(weights: dict[str, Tensor]) -> None:
    del weights["blocks.0.1.running_mean"]


def surplus(weights: dict[str, Tensor]) -> None:
    weights["extra"] = torch.zeros(1)


def reshaped(weights: dict[str, Tensor]) -> None:
    weights["head.weight"] = weights["head.weight"].T


def retyped(weights: dict[str, Tensor]) -> None:
    weights["head.bias"] = weights["head.bias"].double()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (renamed, "'head.wait' are not part of the architecture"),
        (lacking, "'blocks.0.1.running_mean' are missing"),
        (surplus, "'extra' are not part of the architecture"),
        (reshaped, r"'head.weight' are \(256, 10\) torch.float32, the architecture has \(10, 256\) torch.float32"),
        (retyped, r"'head.bias' are \(10,\) torch.float64, the architecture has \(10,\) torch.float32"),
    ],
)
def test_weights_of_another_architecture_are_refused(damage: object, message: str) -> None:
    weights = pack(build(SMALL, 10, seed=0))
    damage(weights)  # type: ignore[operator]
    with pytest.raises(ValueError, match=message):
        unpack(weights, build(SMALL, 10, seed=0))


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (Arch(name="cnn_bm"), "unknown architecture 'cnn_bm'; did you mean 'cnn_bn'"),
        (Arch(name="resnet18x"), "unknown architecture 'resnet18x'; did you mean 'resnet18"),
        (Arch(name="test_vit", params={"dept": 3}), "'test_vit' refuses .*'dept'"),
        (Arch(name="cnn_bn", params={"pretrained": True}), "no published weights"),
        (Arch(name="cnn_bn", params={"widht": 3}), "'cnn_bn' refuses .*'widht'"),
    ],
)
def test_architectures_that_cannot_be_built_are_told(arch: Arch, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(arch, 10, seed=0)


def test_devices_that_are_not_there_are_told() -> None:
    check_device("cpu")
    with pytest.raises(UserError, match=r"device 'gpu' cannot be used here .*give --device cpu"):
        check_device("gpu")


def test_the_small_networks_are_known_to_timm_and_as_large_as_they_say() -> None:
    for name, thousands in (("cnns_bn", 26), ("cnn_bn", 99)):
        assert timm.is_model(name)
        assert round(sum(p.numel() for p in build(Arch(name=name), 10, 0).parameters()) / 1000) == thousands


def test_models_are_channels_last() -> None:
    weights = [m.weight for m in build(SMALL, 10, seed=0).modules() if isinstance(m, nn.Conv2d)]
    assert weights and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


@pytest.mark.parametrize("name", ARCHS)
def test_a_reset_head_depends_on_the_generator_alone_and_leaves_the_rest(name: str) -> None:
    model = build(ARCHS[name][0], 10, seed=0)
    before = pack(model)
    for _ in range(2):
        reset_head(model, 3, torch.Generator().manual_seed(5))
        found = pack(model)
    bound = head(model).in_features ** -0.5
    generator = torch.Generator().manual_seed(5)
    assert torch.equal(
        head(model).weight, torch.empty(head(model).weight.shape).uniform_(-bound, bound, generator=generator)
    )
    assert torch.equal(head(model).bias, torch.empty(3).uniform_(-bound, bound, generator=generator))
    fresh = {key for key in found if not torch.equal(found[key], before[key])}
    assert {key.rpartition(".")[0] for key in fresh} == {n for n, m in model.named_modules() if m is head(model)}


def test_a_head_that_is_not_linear_is_refused() -> None:
    with pytest.raises(UserError, match="ends in Identity"):
        head(timm.create_model("test_resnet", num_classes=0))


def test_weight_files_hold_the_tensors_and_the_facts_and_no_pickle(tmp_path: Path) -> None:
    weights = pack(build(SMALL, 10, seed=0))
    write_weights(tmp_path / "w.safetensors", weights, json.dumps({"seconds": 1.5}))
    found, facts = read_weights(tmp_path / "w.safetensors")
    assert same(found, weights) and json.loads(facts) == {"seconds": 1.5}


@pytest.mark.parametrize("damage", ["truncated", "garbage", "pickle", "absent"])
def test_damaged_weight_files_are_told_with_their_remedy(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "w.safetensors"
    weights = pack(build(SMALL, 10, seed=0))
    write_weights(file, weights, "{}")
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "garbage":
        file.write_bytes(b"\xff" * 1000)
    elif damage == "pickle":
        torch.save(weights, file)
    else:
        file.unlink()
    with pytest.raises(UserError, match=r"w.safetensors.* cannot be read .*; delete it and run again"):
        read_weights(file)
