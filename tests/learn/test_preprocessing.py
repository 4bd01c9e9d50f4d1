from __future__ import annotations

import copy

import pytest
import torch
from timm.data import resolve_data_config
from timm.models import get_pretrained_cfg
from torchvision.transforms import functional as transforms

from ntbench.learn.models import build, features, head, pack
from ntbench.learn.preprocessing import HALF, sized, usual, with_usual
from ntbench.types import Arch, Cell

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NETWORKS = {
    "cnns_bn": Arch(name="cnns_bn"),
    "test_resnet": Arch(name="test_resnet"),
    "test_vit": Arch(name="test_vit", params={"img_size": 32}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_model_normalises_its_own_images_as_torchvision_does(name: str) -> None:
    own = NETWORKS[name].model_copy(update={"mean": MEAN, "std": STD})
    plain, model = (build(arch, 4, seed=1).eval() for arch in (NETWORKS[name], own))
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    wanted, given = transforms.normalize(pixels, list(MEAN), list(STD)), 2 * pixels - 1
    with torch.no_grad():
        for answer in (model, copy.deepcopy(model), build(own, 4, seed=1).eval()):
            torch.testing.assert_close(answer(given), plain(wanted), rtol=1e-4, atol=1e-5)
        # Attacks ask for features past the model's own call.
        torch.testing.assert_close(head(model)(features(model, given)), plain(wanted), rtol=1e-4, atol=1e-5)
    assert pack(model).keys() == pack(plain).keys()
    assert type(model).__name__ == type(plain).__name__


def test_images_between_minus_one_and_one_need_nothing() -> None:
    plain, same = (build(Arch(name="cnns_bn", mean=mean, std=mean), 4, seed=1) for mean in (None, HALF))
    assert type(plain) is type(same)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_the_usual_preprocessing_is_timms(name: str) -> None:
    config = resolve_data_config(pretrained_cfg=get_pretrained_cfg(name).to_dict())
    assert usual(name) == (config["mean"], config["std"])


def test_own_networks_take_images_as_they_are_and_a_given_preprocessing_stays() -> None:
    assert usual("cnns_bn") == (HALF, HALF)
    assert with_usual(Arch(name="resnet18", mean=HALF, std=HALF)).mean == HALF


def test_networks_of_one_size_are_built_for_it() -> None:
    assert sized(Arch(name="test_vit"), 32).params == {"img_size": 32}
    assert sized(Arch(name="test_vit", params={"img_size": 64}), 32).params == {"img_size": 64}
    assert sized(Arch(name="resnet18"), 32).params == {}


def test_an_old_recipe_keeps_its_keys_and_a_new_one_has_others(cell: Cell) -> None:
    assert cell.arch.model_dump(mode="json") == {"name": "cnns_bn", "params": {}}
    assert not {"trained", "sha256"} & cell.pretrain.model_dump().keys()
    others = [
        cell.model_copy(update={"arch": Arch(name="cnns_bn", mean=MEAN, std=STD)}),
        cell.model_copy(update={"pretrain": cell.pretrain.model_copy(update={"trained": False})}),
    ]
    assert len({one.pretrain_key for one in [cell, *others]}) == 3
    assert [Cell.model_validate_json(one.model_dump_json()) for one in others] == others


def test_mean_and_std_come_together() -> None:
    with pytest.raises(ValueError, match="give `mean` and `std` together"):
        Arch(name="cnns_bn", mean=MEAN)
