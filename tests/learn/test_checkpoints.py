from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ntbench.errors import UserError
from ntbench.learn.checkpoints import read_state
from ntbench.learn.models import build, pack
from ntbench.learn.variants import check_fit
from ntbench.types import Arch

SMALL = Arch(name="cnns_bn")
State = dict[str, Tensor]


def weights(classes: int = 3) -> State:
    return pack(build(SMALL, classes, seed=5))


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


WRAPPINGS: dict[str, Callable[[State, Path], object]] = {
    "safetensors": lambda state, file: save_file(state, file),
    "safetensors of a compiled model": lambda state, file: save_file(prefixed(state, "_orig_mod."), file),
    "plain": lambda state, file: torch.save(state, file),
    "of before the archives": lambda state, file: torch.save(state, file, _use_new_zipfile_serialization=False),
    "state_dict": lambda state, file: torch.save({"epoch": 3, "state_dict": state, "best": 0.9}, file),
    "model": lambda state, file: torch.save({"model": state, "optimizer": {"lr": 0.1}}, file),
    "both": lambda state, file: torch.save({"state_dict": {"model": state}}, file),
    "parallel": lambda state, file: torch.save({"model": prefixed(state, "module.")}, file),
    "parallel and compiled": lambda state, file: torch.save(prefixed(state, "_orig_mod.module."), file),
    "compiled in part": lambda state, file: torch.save(
        {name.replace("blocks.0.", "blocks.0._orig_mod."): tensor for name, tensor in state.items()}, file
    ),
    "Lightning": lambda state, file: torch.save({"state_dict": prefixed(state, "model.")}, file),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_whatever_wraps_them_the_same_tensors_come_out(wrapping: str, tmp_path: Path) -> None:
    WRAPPINGS[wrapping](weights(), tmp_path / "w")
    found = read_state(tmp_path / "w")
    assert found.keys() == weights().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights().items())


class Trap:
    """What would leave a mark if somebody unpickled it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a model": (lambda file: torch.save(nn.Linear(2, 2), file), "hold objects, and no object is ever unpickled"),
    "arguments beside": (
        lambda file: torch.save({"args": argparse.Namespace(lr=1), "model": weights()}, file),
        "hold objects, and no object is ever unpickled; save .* alone",
    ),
    "a trap": (lambda file: torch.save({"w": Trap(file.with_name("sprung"))}, file), "hold objects"),
    "a tensor": (lambda file: torch.save(torch.zeros(3), file), "hold a Tensor, no state dict; save"),
    "numbers": (lambda file: torch.save({"lr": 0.1, "w": torch.zeros(2)}, file), "hold lr beside tensors, no state"),
    "nothing": (lambda file: torch.save({}, file), "hold nothing, no state dict"),
    "a torn archive": (lambda file: torn(file), "cannot be read as safetensors .*; give such a file"),
    "noise": (lambda file: file.write_bytes(b"\xff" * 999), "cannot be read as safetensors .*; give such a file"),
    "an empty file": (lambda file: file.write_bytes(b""), "cannot be read as safetensors"),
    "no file": (lambda file: None, "cannot be read as safetensors"),
}


def torn(file: Path) -> None:
    torch.save(weights(), file)
    file.write_bytes(file.read_bytes()[:-300])


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_state_dict_is_refused_and_never_unpickled(kind: str, tmp_path: Path) -> None:
    write, message = REFUSED[kind]
    write(tmp_path / "w.pt")
    with pytest.raises(UserError, match=rf"weights '.*w.pt' {message}"):
        read_state(tmp_path / "w.pt")
    assert not (tmp_path / "sprung").exists()


def without(state: State, name: str) -> State:
    return {n: t for n, t in state.items() if n != name}


MISFITS: dict[str, tuple[State, Arch, str]] = {
    "other classes": (weights(7), SMALL, r"classifier has 7 classes and the source 3: give the images"),
    "no classifier": (without(weights(), "head.weight"), SMALL, "its classifier is missing or named otherwise"),
    "a wider network": (
        pack(build(Arch(name="cnn_bn"), 3, seed=0)),
        SMALL,
        r"\(32, 3, 3, 3\) in the file and \(16, 3, 3, 3\) .* and \d+ more; they fit 'cnn_bn' with 3 classes$",
    ),
    "a relative with other classes": (
        pack(build(Arch(name="test_byobnet"), 7, seed=0)),
        Arch(name="test_resnet"),
        "they fit 'test_byobnet' with 7 classes",
    ),
    "another size": (
        pack(build(Arch(name="test_vit", params={"img_size": 64}), 3, seed=0)),
        Arch(name="test_vit", params={"img_size": 32}),
        "positions are those of another image size",
    ),
    "nothing of the kind": ({"w": torch.zeros(1)}, SMALL, "and 14 more; no architecture of that family has these"),
    "no numbers": (weights() | {"head.bias": torch.full((3,), torch.nan)}, SMALL, "'head.bias' is not finite"),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_what_does_not_fit_is_told_with_what_would(kind: str, tmp_path: Path) -> None:
    state, arch, message = MISFITS[kind]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=message):
        check_fit(tmp_path / "w.safetensors", arch, 3)


def test_what_fits_is_let_pass_without_counters_and_in_halves(tmp_path: Path) -> None:
    state = {n: t.half() if t.is_floating_point() else t for n, t in weights().items() if "num_batches" not in n}
    save_file(state, tmp_path / "w.safetensors")
    check_fit(tmp_path / "w.safetensors", SMALL, 3)
