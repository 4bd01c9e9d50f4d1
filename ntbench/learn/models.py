"""Models: built from their architecture and a seed, taken apart, and their weights as safetensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ntbench.domains import data_root
from ntbench.errors import UserError
from ntbench.learn.checkpoints import in_words, misfits, read_state
from ntbench.learn.networks import maker
from ntbench.learn.output_layer import OutputLayer
from ntbench.learn.preprocessing import preprocessing
from ntbench.learn.saved import check_same
from ntbench.sources import weights_file
from ntbench.types import Arch

STARTS = ("pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict")
"""What an architecture's parameters say of the weights that it starts from: for the defender alone."""


def build(arch: Arch, classes: int, seed: int) -> nn.Module:
    """Return a randomly initialised model, in channels_last unless it says another, that depends on its seed alone.

    Whatever the parameters say of published weights is left out. Raises UserError on a name that timm does not know and
    on arguments that it refuses.
    """
    params = {key: value for key, value in arch.params.items() if key not in STARTS}
    return _created(arch, classes, seed, params)


def start(arch: Arch, classes: int, seed: int, weights: str = "", whole: bool = False) -> nn.Module:
    """Return the model that a defender begins with: as `build`, or with published weights where these are named.

    `weights` is `timm`, or a file or folder as in `load_public`.
    """
    if weights == "timm" or any(key in arch.params for key in STARTS):
        published = _published(arch) if weights == "timm" else {}
        return _created(arch, classes, seed, {**arch.params, **published})
    model = build(arch, classes, seed)
    return load_public(model, Path(weights).expanduser(), whole) if weights else model


def load_public(model: nn.Module, file: Path, whole: bool = False) -> nn.Module:
    """Load a file of weights into a model and return it; unless the `whole` is asked for, without a head that differs.

    A folder is one in which diffusers saved a model. Raises UserError on a file that cannot be read, on weights that
    the model lacks or has in another shape, and on a folder of another network.
    """
    if file.is_dir():
        check_same(model, file)
        file = weights_file(file)
    found, own, free = read_state(file), model.state_dict(), set() if whole else head_names(model)
    if wrong := misfits(own, found, free):
        raise UserError(f"weights {str(file)!r}: {in_words(wrong)}; take weights of the same architecture")
    model.load_state_dict(own | {n: t for n, t in found.items() if n in own and t.shape == own[n].shape})
    return model


def head_names(model: nn.Module) -> set[str]:
    """Return the names of the classifier's parameters."""
    classifier = {id(p) for p in head(model).parameters()}
    return {name for name, p in model.named_parameters() if id(p) in classifier}


def _published(arch: Arch) -> dict[str, Any]:
    """Return what timm takes for published weights: the file beside the data where it is there, before any download."""
    file = data_root() / "weights" / f"{arch.name}.safetensors"
    return {"pretrained": True} | ({"pretrained_cfg_overlay": {"file": str(file)}} if file.is_file() else {})


def _created(arch: Arch, classes: int, seed: int, params: Mapping[str, Any]) -> nn.Module:
    make = maker(arch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = make(num_classes=classes, **params)
        except (UserError, MemoryError):
            raise
        # Foreign code and a broken network end in any kind of error.
        except Exception as error:
            reason = " ".join(str(error).split())
            told = f"architecture {arch.name!r} cannot be built with params={dict(params)}: {reason}"
            raise UserError(told + _remedy(params, reason, classes)) from None
    return preprocessing(model.to(memory_format=getattr(model, "memory_format", torch.channels_last)), arch)


def _remedy(params: Mapping[str, Any], reason: str, classes: int) -> str:
    if "size mismatch" in reason or "Missing key" in reason:
        return f"; give the file as `weights` under [pretrain], which leaves out a head of other than {classes} classes"
    if params.get("pretrained"):
        return (
            "; published weights need the network once: connect, or give a file as `weights` under [pretrain] or as "
            "weights/NAME.safetensors below NTBENCH_DATA"
        )
    return ""


def check_device(name: str) -> None:
    """Raise UserError where this machine has no torch device of this name."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device {name!r} cannot be used here ({reason}); give --device cpu") from None


def head(model: nn.Module) -> nn.Linear:
    """Return the linear classifier of a timm model; the last layer of a denoiser has what is asked of one."""
    layer = model.get_classifier()  # type: ignore[operator]
    if isinstance(layer, OutputLayer):
        return cast(nn.Linear, layer)
    if not isinstance(layer, nn.Linear):
        raise UserError(f"{type(model).__name__} ends in {type(layer).__name__}; only linear classifiers are supported")
    return layer


def reset_head(model: nn.Module, classes: int, generator: torch.Generator) -> None:
    """Replace the classifier by a freshly initialised one, as torch initialises a linear layer."""
    device = head(model).weight.device
    model.reset_classifier(classes)  # type: ignore[operator]
    layer = head(model)
    bound = 1 / math.sqrt(layer.in_features)
    with torch.no_grad():
        for tensor in (layer.weight, layer.bias):
            tensor.copy_(torch.empty(tensor.shape).uniform_(-bound, bound, generator=generator))
    layer.to(device)


def features(model: nn.Module, x: Tensor) -> Tensor:
    """Return the input of the linear head, [n, d]."""
    maps = model.forward_features(x)  # type: ignore[operator]
    return model.forward_head(maps, pre_logits=True)  # type: ignore[operator,no-any-return]


class Head(nn.Module):
    """The linear classifier of a model as a model of features [n, d], with timm's interface."""

    def __init__(self, layer: nn.Linear) -> None:
        """Take a classifier; it stays the same object."""
        super().__init__()
        self.layer = layer

    def get_classifier(self) -> nn.Linear:
        """Return the classifier."""
        return self.layer

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a fresh one."""
        self.layer = nn.Linear(self.layer.in_features, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the features as they are."""
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Classify features unless `pre_logits`."""
        return x if pre_logits else self.layer(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, [n, classes]."""
        return self.layer(x)  # type: ignore[no-any-return]


class BlackBox(nn.Module):
    """A model that answers images with logits and gives nothing else away: no weights, no gradients."""

    def __init__(self, model: nn.Module) -> None:
        """Hide a model, which answers in eval mode from here on."""
        super().__init__()
        model.eval()

        def answer(x: Tensor) -> Tensor:
            with torch.no_grad():
                return model(x)  # type: ignore[no-any-return]

        # A module among the attributes would be listed with its parameters.
        self._answer = answer

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, [n, classes]."""
        return self._answer(x)


@torch.no_grad()
def encoded(model: nn.Module, x: Tensor, batch: int = 200) -> Tensor:
    """Return the features of images in eval mode, [n, d]."""
    model.eval()
    return torch.cat([features(model, part) for part in x.split(batch)])


def pack(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict as contiguous tensors on the CPU.

    Raises FloatingPointError on weights that are not finite.
    """
    check_finite(model)
    return state_of(model)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict as contiguous tensors on the CPU, whatever they hold."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}


def check_finite(model: nn.Module, when: str = "") -> None:
    """Raise FloatingPointError with the name of weights that are not finite."""
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise FloatingPointError(f"weights {name!r} are not finite{when}")


def unpack(weights: Mapping[str, Tensor], model: nn.Module) -> nn.Module:
    """Load weights into a fresh model of the declared architecture and return it.

    Raises ValueError where names, shapes or dtypes differ from the architecture's.
    """
    own = model.state_dict()
    for name in sorted(own.keys() ^ weights.keys()):
        raise ValueError(f"weights {name!r} are {'missing' if name in own else 'not part of the architecture'}")
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape or tensor.dtype != own[name].dtype:
            raise ValueError(
                f"weights {name!r} are {tuple(tensor.shape)} {tensor.dtype}, "
                f"the architecture has {tuple(own[name].shape)} {own[name].dtype}"
            )
    model.load_state_dict(dict(weights))
    return model


def write_weights(path: Path, weights: Mapping[str, Tensor], facts: str) -> None:
    """Write tensors and a JSON string of facts about them to one safetensors file."""
    path.write_bytes(save(dict(weights), metadata={"facts": facts}))


def read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read what `write_weights` wrote; nothing is unpickled.

    Raises UserError on a file that is no such safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, (file.metadata() or {})["facts"]  # noqa: SIM118
    except (SafetensorError, KeyError, OSError) as error:
        raise UserError(f"artifact {str(path)!r} cannot be read ({error}); delete it and run again") from None
