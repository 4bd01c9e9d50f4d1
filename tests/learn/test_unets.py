"""UNets of diffusers behind timm's interface: the same weights, the same answers, and layers in their order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import save_file
from timm.models import group_parameters

from ntbench.errors import UserError
from ntbench.learn.models import build, head, load_public, reset_head, start
from ntbench.suite import load_suite
from ntbench.tasks.classification import CLASSIFYING
from ntbench.tasks.denoising import Denoising
from ntbench.types import Arch

SMALL = Arch(name="unet2d", params={"block_out_channels": (8, 16)})


def test_weights_and_answers_are_those_of_diffusers(tmp_path: Path) -> None:
    model = build(SMALL, 1, seed=0).eval()
    theirs = UNet2DModel(
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        add_attention=False,
    ).eval()
    save_file(theirs.state_dict(), tmp_path / "weights.safetensors")
    load_public(model, tmp_path / "weights.safetensors")
    x, t = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 500, 999])
    plane = t.float()[:, None, None, None].expand(3, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(model(torch.cat([x, plane], dim=1)), theirs(x, t).sample, rtol=1e-4, atol=1e-5)


def test_the_default_has_a_quarter_of_a_million_parameters_and_no_buffers() -> None:
    model = build(Arch(name="unet2d"), 3, seed=0)
    assert 0.15e6 < sum(p.numel() for p in model.parameters()) < 0.3e6
    assert not list(model.buffers())


def test_the_network_of_the_papers_suite_is_that_of_ho_et_al() -> None:
    model = build(load_suite("paper_sophon_generation").arch, 3, seed=0)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(35.7e6, rel=0.01)


def test_the_output_layer_is_drawn_anew_as_torch_draws_it() -> None:
    model = build(SMALL, 1, seed=0)
    before = head(model).weight.detach().clone()
    reset_head(model, 1, torch.Generator().manual_seed(0))
    assert head(model).out_features == 1 and head(model).in_features == 8 * 9
    assert not torch.equal(head(model).weight, before)
    assert head(model).weight.abs().max() <= 72**-0.5


def test_layers_lie_in_order_from_images_to_noise() -> None:
    model = build(SMALL, 1, seed=0)
    depth = group_parameters(model, model.group_matcher(), reverse=True)  # type: ignore[operator]
    names = ["conv_in.bias", "down_blocks.0.resnets.0.conv1.bias", "down_blocks.1.resnets.0.conv1.bias"]
    names += ["mid_block.resnets.0.conv1.bias", "up_blocks.0.resnets.0.conv1.bias", "up_blocks.1.resnets.0.conv1.bias"]
    assert [depth[name] for name in [*names, "conv_out.bias"]] == list(range(7))


def test_a_network_of_one_objective_is_told_from_one_of_another() -> None:
    assert Denoising().unfit(build(SMALL, 1, seed=0)) == ""
    assert "network for classification" in Denoising().unfit(build(Arch(name="cnns_bn"), 2, seed=0))
    assert "network for denoising" in CLASSIFYING.unfit(build(SMALL, 1, seed=0))


def test_parameters_that_diffusers_refuses_are_named() -> None:
    with pytest.raises(UserError, match="unet2d"):
        build(Arch(name="unet2d", params={"block_out_channels": (8, 16), "norm_num_groups": 3}), 1, seed=0)
    with pytest.raises(UserError, match="no published weights"):
        start(SMALL, 1, seed=0, weights="timm")


ATTENTIVE: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "add_attention": True,
}


def saved(folder: Path, **config: Any) -> UNet2DModel:
    """Save a UNet of diffusers with attention, as its own users do."""
    torch.manual_seed(3)
    model = UNet2DModel(**(ATTENTIVE | config), sample_size=8, in_channels=1, out_channels=1).eval()
    model.save_pretrained(folder)
    return model


def test_a_folder_of_diffusers_is_a_start(tmp_path: Path) -> None:
    theirs = saved(tmp_path / "unet")
    model = start(Arch(name="unet2d", params=ATTENTIVE), 1, seed=0, weights=str(tmp_path / "unet")).eval()
    x, t = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([7, 700])
    plane = t.float()[:, None, None, None].expand(2, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(model(torch.cat([x, plane], dim=1)), theirs(x, t).sample, rtol=1e-4, atol=1e-5)


def test_a_folder_without_a_setting_has_diffusers_default(tmp_path: Path) -> None:
    saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("act_fn") == "silu" and config.pop("attention_head_dim") == 4
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"params with attention_head_dim = 8$"):
        start(Arch(name="unet2d", params=ATTENTIVE), 1, seed=0, weights=str(tmp_path))


def test_a_folder_of_another_network_says_what_its_arch_would_be(tmp_path: Path) -> None:
    # Neither has weights of its own.
    saved(tmp_path, act_fn="relu", norm_num_groups=2)
    with pytest.raises(UserError, match=r'params with act_fn = "relu", norm_num_groups = 2$'):
        start(Arch(name="unet2d", params=ATTENTIVE), 1, seed=0, weights=str(tmp_path))


def test_folders_that_are_none_of_diffusers_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json that can be read"):
        start(SMALL, 1, seed=0, weights=str(tmp_path))
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    with pytest.raises(UserError, match="are of AutoencoderKL; give a folder"):
        start(SMALL, 1, seed=0, weights=str(tmp_path))
    with pytest.raises(UserError, match="no network of diffusers; give a file"):
        start(Arch(name="cnns_bn"), 10, seed=0, weights=str(tmp_path))
    saved(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        start(Arch(name="unet2d", params=ATTENTIVE), 1, seed=0, weights=str(tmp_path))
