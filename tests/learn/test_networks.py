"""Networks of timm's and of one's own: sized, hashed, and taken through the whole pipeline."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from timm.models import create_model
from torch import Tensor, nn
from torchvision.models import resnet18

from ntbench.engine.plan import plan, with_arch
from ntbench.engine.prepared import prepared
from ntbench.engine.runner import Runner
from ntbench.errors import UserError
from ntbench.learn.models import build, features, head, pack, reset_head, start
from ntbench.learn.sizes import settled
from ntbench.suite import Suite
from ntbench.types import Arch, Task

OWN = '''"""A network of one's own."""
from torch import nn

class Net(nn.Module):
    def __init__(self, classes, width):
        super().__init__()
        self.out = nn.Linear(width, classes)
        self.body = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x):
        return self.out(self.body(x))

def net(num_classes, width=8):
    return Net(num_classes, width)

def two_heads(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes), nn.Softmax(dim=1))

def headless(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 5))

def nothing(num_classes):
    return num_classes
'''


@pytest.fixture
def own(tmp_path: Path) -> str:
    file = tmp_path / "own_net.py"
    file.write_text(OWN, encoding="utf-8")
    return f"{file}:"


def images(size: int = 8) -> Tensor:
    return torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def at(suite: Suite, size: int, arch: Arch, **pretrain: str) -> Suite:
    """Return a suite at one image size with the shortest budgets."""
    task = Task.model_validate(suite.tasks[0].model_dump() | {"image_size": size, "scored_samples": 20})
    update = {"tasks": (task,), "arch": arch, "pretrain": suite.pretrain.model_copy(update=pretrain)}
    return suite.model_copy(update=update)


DEPTHS = {"vit_tiny_patch16_224": {"depth": 2}, "vit_tiny_r_s16_p8_224": {"depth": 1}}


@pytest.mark.parametrize(
    ("name", "sized"),
    [
        ("vit_tiny_patch16_224", True),
        ("vit_tiny_r_s16_p8_224", True),
        ("test_nfnet", False),
        ("regnetx_002", False),
    ],
    ids=["ViT", "hybrid", "normalisation-free", "grouped"],
)
def test_networks_of_timm_go_through_the_whole_pipeline(name: str, sized: bool, tiny: Suite, runner: Runner) -> None:
    params = DEPTHS.get(name, {})
    suite = with_arch(at(tiny, 32, Arch(name=name, params=params)))
    assert suite.arch.params == (params | {"img_size": 32} if sized else params)
    result = runner.run(plan(suite)[0])
    assert result.status == "ok", result.error
    assert result.trajectory.step == (1, 2, 4) and result.cell.arch == suite.arch


def test_the_grouped_network_has_groups_and_the_free_one_no_norms() -> None:
    grouped, free = build(Arch(name="regnetx_002"), 2, 0), build(Arch(name="test_nfnet"), 2, 0)
    assert any(1 < m.groups < m.in_channels for m in grouped.modules() if isinstance(m, nn.Conv2d))
    assert not any(isinstance(m, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm) for m in free.modules())


@pytest.mark.parametrize(
    ("arch", "size", "message"),
    [
        (
            Arch(name="vit_tiny_patch16_224", params={"depth": 1, "img_size": 64}),
            32,
            r"takes no images of 32 pixels: .*\(32\).*\(64\).*; leave img_size out, or set it to 32",
        ),
        (Arch(name="vit_tiny_patch16_224", params={"depth": 1}), 40, "not made of patches of 16 x 16; take another"),
        (Arch(name="levit_128s"), 32, "ends in tuple; only linear classifiers are supported"),
    ],
)
def test_sizes_that_do_not_fit_are_told_with_the_remedy(arch: Arch, size: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        settled(arch, size)


def test_a_network_for_other_images_alone_is_told(own: str) -> None:
    with pytest.raises(UserError, match=r"takes no images of 16 pixels: mat1 and mat2 .*; take another image_size"):
        settled(Arch(name=f"{own}two_heads"), 16)


def test_tasks_of_two_sizes_do_not_share_a_network_that_has_one(tiny: Suite) -> None:
    arch = Arch(name="vit_tiny_patch16_224", params={"depth": 1})
    both = [at(tiny, size, arch).tasks[0].model_copy(update={"label": str(size)}) for size in (32, 64)]
    with pytest.raises(UserError, match=r"arch: 'vit_tiny_patch16_224' needs another img_size for each of \[32, 64\]"):
        plan(at(tiny, 32, arch).model_copy(update={"tasks": tuple(both)}))


def test_a_network_of_ones_own_gets_timms_interface_and_keeps_its_names(own: str) -> None:
    model = build(Arch(name=f"{own}net"), 3, seed=0).eval()
    assert sorted(pack(model)) == ["body.0.bias", "body.0.weight", "out.bias", "out.weight"]
    assert head(model) is model.out
    assert torch.equal(head(model)(features(model, images())), model(images()))
    twin = copy.deepcopy(model)
    reset_head(twin, 5, torch.Generator().manual_seed(0))
    assert twin(images()).shape == (4, 5) and model(images()).shape == (4, 3)
    assert torch.equal(features(twin, images()), features(model, images()))
    twin.get_parameter("body.0.weight").data.zero_()
    assert not torch.equal(features(twin, images()), features(model, images())), "a copy speaks for itself"
    assert build(Arch(name=f"{own}net", params={"width": 4}), 3, 0).out.in_features == 4  # type: ignore[union-attr]


def test_its_own_preprocessing_comes_before_its_features(own: str) -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    ours = build(Arch(name=f"{own}net", mean=mean, std=std), 3, seed=0).eval()
    plain = build(Arch(name=f"{own}net"), 3, seed=0).eval()
    shifted = ((images() + 1) / 2 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(ours(images()), plain(shifted))
    torch.testing.assert_close(features(ours, images()), features(plain, shifted))


def test_a_function_of_a_package_is_the_same_network() -> None:
    ours, theirs = build(Arch(name="torchvision.models:resnet18"), 4, seed=3), resnet18(num_classes=4)
    theirs.load_state_dict(pack(ours))
    torch.testing.assert_close(ours.eval()(images(32)), theirs.eval()(images(32)))
    assert features(ours, images(32)).shape == (4, 512)
    timms = build(Arch(name="timm.models.resnet:resnet18"), 4, seed=3)
    assert type(timms) is type(create_model("resnet18")), "what has the interface stays as it is"


def test_its_code_is_part_of_the_recipe(own: str, tiny: Suite, runner: Runner) -> None:
    arch = Arch(name=f"{own}net")
    cell = plan(at(tiny, 8, arch))[0]
    assert len(cell.arch.code) == 16 and runner.run(cell).status == "ok"
    file = Path(own.rstrip(":"))
    file.write_text(OWN + "# another thought\n", encoding="utf-8")
    again = plan(at(tiny, 8, arch))[0]
    assert (again.pretrain_key, again.key) != (cell.pretrain_key, cell.key)
    with pytest.raises(UserError, match=r"the code of architecture .*own_net.py:net' changed; plan the run again"):
        build(cell.arch, 2, 0)


def test_recipes_without_code_keep_their_keys() -> None:
    assert Arch(name="cnns_bn").model_dump(mode="json") == {"name": "cnns_bn", "params": {}}
    coded = Arch(name="a.py:f", code="0" * 16)
    assert Arch.model_validate_json(coded.model_dump_json()) == coded


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nett", r"unknown function of '.*own_net.py': 'nett'; did you mean 'net'"),
        ("headless", "does not end in a linear layer of num_classes = 2 outputs"),
        ("nothing", "returns int, not a torch module; mend its function"),
        ("two_heads", "its linear layer is not its last step; let it end in one"),
    ],
)
def test_functions_that_build_no_classifier_are_told(own: str, function: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        settled(Arch(name=own + function), 8)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "no_such_package:net",
            "'no_such_package' cannot be imported .*; install its package, or give the path of its",
        ),
        ("no_such_file.py:net", "does not exist; give the path of a Python file"),
    ],
)
def test_code_that_is_not_there_is_told(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        settled(Arch(name=name), 8)


def test_published_weights_without_a_network_are_told_before_any_worker_starts(
    tiny: Suite, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cells = plan(at(tiny, 32, Arch(name="test_resnet"), weights="timm"))
    with pytest.raises(
        UserError, match=r"published weights need the network once: connect, or give a file as `weights`"
    ):
        prepared(cells, cache, [])


def test_a_checkpoint_whose_head_does_not_fit_is_told_before_any_worker_starts(
    tiny: Suite, cache: Path, tmp_path: Path
) -> None:
    file = tmp_path / "seven.pth"
    torch.save(pack(build(Arch(name="test_resnet"), 7, 0)), file)
    cells = plan(at(tiny, 32, Arch(name="test_resnet", params={"checkpoint_path": str(file)})))
    with pytest.raises(UserError, match=r"size mismatch for fc.*give the file as `weights` under \[pretrain\], which"):
        prepared(cells, cache, [])
    with pytest.raises(UserError, match=r"give the file as `weights`"):
        start(cells[0].arch, 10, 0)
