"""Models: timm's architectures, two small ones of ours, diffusers' UNets, and their weights as safetensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from timm.models import register_model
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.errors import UserError, unknown
from ntbench.learn import unets as unets  # registers them
from ntbench.learn.output_layer import OutputLayer
from ntbench.types import Arch


class SmallCNN(nn.Module):
    """Three blocks of convolution, batch norm, ReLU and max-pooling, and a linear head, with timm's interface.

    Takes [n, 3, s, s] with s of at least 8 pixels; the head sees a 2x2 grid of averages, whatever s is.
    """

    def __init__(self, widths: tuple[int, int, int], num_classes: int = 10, in_chans: int = 3) -> None:
        """Build the blocks with the given channel widths."""
        super().__init__()
        self.num_features, self.num_classes = 4 * widths[-1], num_classes
        channels = [in_chans, *widths]
        blocks = [_block(a, b) for a, b in zip(channels, widths, strict=False)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(self.num_features, num_classes)

    def get_classifier(self) -> nn.Linear:
        """Return the head."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head by a fresh one."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature maps, [n, c, s // 8, s // 8]."""
        return self.blocks(x)  # type: ignore[no-any-return]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool the feature maps and, unless `pre_logits`, classify them."""
        # Of 16 pixels 2x2 are left already; asking for them again would cost a tenth of a training step.
        x = x.flatten(1) if x.shape[-2:] == (2, 2) else F.adaptive_avg_pool2d(x, 2).flatten(1)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, [n, classes]."""
        return self.forward_head(self.forward_features(x))


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        # ReLU and max-pooling commute, and a quarter of the values is left after pooling.
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
    )


@register_model  # type: ignore[untyped-decorator]
def cnns_bn(pretrained: bool = False, **kwargs: int) -> SmallCNN:
    """Return the 16-32-64 network of 26 thousand parameters."""
    return _small((16, 32, 64), pretrained, kwargs)


@register_model  # type: ignore[untyped-decorator]
def cnn_bn(pretrained: bool = False, **kwargs: int) -> SmallCNN:
    """Return the 32-64-128 network of 99 thousand parameters."""
    return _small((32, 64, 128), pretrained, kwargs)


# What timm's factory hands to every model beside the caller's arguments.
_TIMMS = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def _small(widths: tuple[int, int, int], pretrained: bool, kwargs: Mapping[str, int]) -> SmallCNN:
    if pretrained:
        raise UserError("the small networks have no published weights; leave `pretrained` out")
    return SmallCNN(widths, **{key: value for key, value in kwargs.items() if key not in _TIMMS})


STARTS = ("pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict")
"""What an architecture's parameters say of the weights that it starts from: for the defender alone."""


def build(arch: Arch, classes: int, seed: int) -> nn.Module:
    """Return a randomly initialised model, in channels_last, that depends on its seed alone.

    Whatever the parameters say of published weights is left out. Raises UserError on a name that timm does not know and
    on arguments that it refuses.
    """
    params = {key: value for key, value in arch.params.items() if key not in STARTS}
    return _created(arch.name, classes, seed, params)


def start(arch: Arch, classes: int, seed: int, weights: str = "") -> nn.Module:
    """Return the model that a defender begins with: as `build`, or with published weights where these are named.

    `weights` is `timm`, or a safetensors file of the architecture, whose head is left out where its classes differ.
    """
    if weights == "timm" or any(key in arch.params for key in STARTS):
        published = {"pretrained": True} if weights == "timm" else {}
        return _created(arch.name, classes, seed, {**arch.params, **published})
    model = build(arch, classes, seed)
    return load_public(model, Path(weights)) if weights else model


def load_public(model: nn.Module, file: Path) -> nn.Module:
    """Load a safetensors file into a model, all but the head where its shape differs, and return the model.

    Raises UserError on a file that cannot be read, and on weights that the model lacks or has in another shape.
    """
    try:
        found = load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"weights {str(file)!r} cannot be read as safetensors ({error}); give such a file") from None
    own, classifier = model.state_dict(), {id(p) for p in head(model).parameters()}
    free = {name for name, p in model.named_parameters() if id(p) in classifier}
    for name in sorted((own.keys() | found.keys()) - free):
        ours, theirs = (tuple(t[name].shape) if name in t else None for t in (own, found))
        # Counters of batches decide nothing; not every file has them.
        if ours != theirs and not (theirs is None and name.endswith("num_batches_tracked")):
            raise UserError(
                f"weights {str(file)!r}: {name!r} is {theirs or 'missing'} in the file and {ours or 'missing'} in the "
                "architecture; take weights of the same architecture"
            )
    fitting = {n: t for n, t in found.items() if n in own and (n not in free or t.shape == own[n].shape)}
    model.load_state_dict(own | fitting)
    return model


def _created(name: str, classes: int, seed: int, params: Mapping[str, Any]) -> nn.Module:
    if not timm.is_model(name):
        raise unknown("architecture", name, timm.list_models())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model: nn.Module = timm.create_model(name, num_classes=classes, **params)
        except (TypeError, ValueError, OSError, RuntimeError, AssertionError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"architecture {name!r} cannot be built with params={dict(params)}: {reason}") from None
    return model.to(memory_format=torch.channels_last)


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
