"""The control that starts from public weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from toys import context, defense, learnt

from ntbench.learn.models import build, pack
from ntbench.types import Arch


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Weights of the network of `context` with a head for seven classes."""
    save_file(pack(build(Arch(name="cnns_bn"), 7, seed=5)), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def public(file: Path, **params: Any) -> Any:
    return defense("public", weights=str(file), **params)


def test_all_but_the_head_comes_from_the_file(file: Path) -> None:
    released = pack(public(file).protect(learnt(), context()))
    wanted, fresh = pack(build(Arch(name="cnns_bn"), 7, seed=5)), pack(context().fresh(3))
    for name, tensor in released.items():
        assert torch.equal(tensor, (fresh if name.startswith("head") else wanted)[name])


def test_a_head_that_fits_is_taken_and_one_that_lacks_is_not_missed(file: Path) -> None:
    weights = pack(build(Arch(name="cnns_bn"), 3, seed=5))
    save_file(weights, file)
    assert torch.equal(pack(public(file).protect(learnt(), context()))["head.weight"], weights["head.weight"])
    save_file({name: w for name, w in weights.items() if not name.startswith("head")}, file)
    assert torch.equal(
        pack(public(file).protect(learnt(), context()))["head.weight"], pack(context().fresh(3))["head.weight"]
    )


def test_the_recipe_follows_the_file(file: Path) -> None:
    before = public(file)
    assert len(before.sha256) == 64
    assert public(file, sha256=before.sha256).spec() == before.spec()
    weights = pack(build(Arch(name="cnns_bn"), 7, seed=6))
    save_file(weights, file)
    assert public(file).spec() != before.spec()
    with pytest.raises(ValidationError, match=f"not {before.sha256}; it is another file"):
        public(file, sha256=before.sha256)


def without(weights: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {n: w for n, w in weights.items() if n != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: without(w, "blocks.1.0.weight"), r"'blocks.1.0.weight' is missing in the file and \(32, 16, 3, 3\)"),
        (lambda w: w | {"stem.weight": torch.zeros(2)}, r"'stem.weight' is \(2,\) in the file and missing in"),
        (lambda w: w | {"blocks.0.0.weight": torch.zeros(16, 3, 5, 5)}, r"\(16, 3, 5, 5\) .* \(16, 3, 3, 3\)"),
    ],
)
def test_what_does_not_fit_is_named_with_its_shapes(file: Path, change: Any, message: str) -> None:
    save_file(change(pack(build(Arch(name="cnns_bn"), 7, seed=5))), file)
    with pytest.raises(ValueError, match=message):
        public(file).protect(copy.deepcopy(learnt()), context())


def test_a_file_that_is_not_there_or_not_safetensors_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"weights='.*none.safetensors' is not there"):
        public(tmp_path / "none.safetensors")
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        public(tmp_path / "text").protect(learnt(), context())
