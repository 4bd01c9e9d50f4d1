from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ntbench.errors import UserError
from ntbench.learn.models import (
    build,
    check_device,
    features,
    head,
    load_public,
    pack,
    read_weights,
    reset_head,
    start,
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
        (Arch(name="test_vit", params={"dept": 3}), "'test_vit' cannot be built with params=.*'dept'"),
        (Arch(name="cnn_bn", params={"widht": 3}), "'cnn_bn' cannot be built with params=.*'widht'"),
    ],
)
def test_architectures_that_cannot_be_built_are_told(arch: Arch, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(arch, 10, seed=0)


RESNET = Arch(name="test_resnet")


@pytest.fixture
def published(tmp_path: Path) -> dict[str, Path]:
    """Files of weights that somebody published: of our own small network and of one of timm's, for ten classes."""
    files = {arch.name: tmp_path / f"{arch.name}.safetensors" for arch in (SMALL, RESNET)}
    for arch in (SMALL, RESNET):
        save_file(pack(build(arch, 10, seed=77)), files[arch.name])
    return files


def weights_of(arch: Arch) -> dict[str, Tensor]:
    return pack(build(arch, 10, seed=77))


@pytest.mark.parametrize("key", ["checkpoint_path", "pretrained", "both"])
def test_scratch_is_random_whatever_the_parameters_of_an_architecture_hold(
    published: dict[str, Path], key: str
) -> None:
    """Somebody plants published weights in `arch.params`: they reach whom the defender trains, never `build`."""
    file = str(published[RESNET.name])
    params: dict[str, dict[str, Any]] = {
        "checkpoint_path": {"checkpoint_path": file},
        "pretrained": {"pretrained": True, "pretrained_cfg_overlay": {"file": file, "num_classes": 10}},
        "both": {"pretrained": False, "checkpoint_path": file},
    }
    planted = Arch(name=RESNET.name, params=params[key])
    assert same(pack(build(planted, 10, seed=3)), pack(build(RESNET, 10, seed=3)))
    begun = pack(start(planted, 10, seed=3))
    assert same(begun, weights_of(RESNET))


def test_a_start_without_published_weights_is_a_random_one() -> None:
    for arch in (SMALL, RESNET):
        assert same(pack(start(arch, 10, seed=3)), pack(build(arch, 10, seed=3)))


@pytest.mark.parametrize("arch", [SMALL, RESNET], ids=lambda arch: arch.name)
def test_a_file_of_weights_is_where_a_defender_begins(published: dict[str, Path], arch: Arch) -> None:
    begun = start(arch, 10, seed=3, weights=str(published[arch.name]))
    assert same(pack(begun), weights_of(arch))


@pytest.mark.parametrize("arch", [SMALL, RESNET], ids=lambda arch: arch.name)
def test_of_weights_for_other_classes_the_head_is_left_out(published: dict[str, Path], arch: Arch) -> None:
    found = pack(start(arch, 7, seed=3, weights=str(published[arch.name])))
    fresh, theirs = pack(build(arch, 7, seed=3)), weights_of(arch)
    of_head = {name for name in found if found[name].shape != theirs[name].shape}
    assert len(of_head) == 2
    assert all(torch.equal(found[name], (fresh if name in of_head else theirs)[name]) for name in found)


def test_a_file_without_a_head_fits(tmp_path: Path) -> None:
    body = {name: tensor for name, tensor in weights_of(SMALL).items() if not name.startswith("head.")}
    save_file(body, tmp_path / "body.safetensors")
    found = pack(load_public(build(SMALL, 10, seed=3), tmp_path / "body.safetensors"))
    fresh = pack(build(SMALL, 10, seed=3))
    assert all(torch.equal(found[name], body.get(name, fresh[name])) for name in fresh)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda w: w.pop("blocks.0.0.weight"), "'blocks.0.0.weight' is missing in the file"),
        (
            lambda w: w.update({"blocks.1.0.weight": torch.zeros(3)}),
            "'blocks.1.0.weight' is (3,) in the file and (32, 16, 3, 3) in the architecture",
        ),
        (
            lambda w: w.update({"blocks.9.weight": torch.zeros(3)}),
            "'blocks.9.weight' is (3,) in the file and missing in the architecture",
        ),
    ],
    ids=["missing", "of another shape", "unheard of"],
)
def test_weights_that_do_not_fit_are_told_by_name(
    tmp_path: Path, damage: Callable[[dict[str, Tensor]], object], named: str
) -> None:
    weights = weights_of(SMALL)
    damage(weights)
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(UserError) as caught:
        start(SMALL, 10, seed=0, weights=str(tmp_path / "w.safetensors"))
    assert "w.safetensors'" in str(caught.value) and named in str(caught.value)


def test_weights_that_cannot_be_read_are_told_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "garbage.safetensors").write_bytes(b"\xff" * 1000)
    for name in ("garbage.safetensors", "absent.safetensors"):
        with pytest.raises(UserError, match=rf"{name}' cannot be read as safetensors .*; give such a file"):
            load_public(build(SMALL, 10, seed=0), tmp_path / name)


def test_published_weights_are_read_beside_the_data_before_any_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arch = Arch(name="resnet10t")
    published = timm.create_model("resnet10t").state_dict()
    (tmp_path / "weights").mkdir()
    save_file(published, tmp_path / "weights" / "resnet10t.safetensors")
    monkeypatch.setenv("NTBENCH_DATA", str(tmp_path))
    begun = start(arch, 7, seed=0, weights="timm").state_dict()
    assert begun["fc.weight"].shape == (7, 512)
    assert {name for name in published if not torch.equal(published[name], begun[name])} == {"fc.weight", "fc.bias"}


def test_the_small_networks_have_no_published_weights() -> None:
    with pytest.raises(UserError, match="no published weights"):
        start(SMALL, 10, seed=0, weights="timm")


def test_devices_that_are_not_there_are_told() -> None:
    check_device("cpu")
    with pytest.raises(UserError, match=r"device 'gpu' cannot be used here .*give --device cpu"):
        check_device("gpu")


def test_the_small_networks_are_known_to_timm_and_as_large_as_they_say() -> None:
    for name, thousands in (("cnns_bn", 26), ("cnn_bn", 99)):
        assert timm.is_model(name)
        assert round(sum(p.numel() for p in build(Arch(name=name), 10, 0).parameters()) / 1000) == thousands


def test_models_are_channels_last_but_for_those_that_ask_for_another_format() -> None:
    denoiser = Arch(name="unet2d", params={"block_out_channels": (8,)})
    for arch, outputs, form in ((SMALL, 10, torch.channels_last), (denoiser, 3, torch.contiguous_format)):
        weights = [m.weight for m in build(arch, outputs, seed=0).modules() if isinstance(m, nn.Conv2d)]
        assert weights and all(weight.is_contiguous(memory_format=form) for weight in weights)


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
