"""Data and networks that a notebook holds, in the engine's words: domains, shares of them, an architecture."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import timm
import torch
from timm.models import register_model
from torch import Tensor, nn
from torch.utils.data import Dataset

from ntbench.engine.bench import Bench
from ntbench.engine.runner import Runner
from ntbench.engine.shares import HELD_OUT, Shares
from ntbench.errors import UserError
from ntbench.learn.models import build, pack, unpack
from ntbench.learn.scoring import correct
from ntbench.tasks.classification import CLASSIFYING
from ntbench.tasks.data import Domain, Split, divided
from ntbench.types import Arch, Cell, Level, Task, digest

Data = tuple[Tensor, Tensor] | Dataset[Any]
"""Images as the model is fed them, float [n, c, s, s], with labels [n]; or a data set of such (image, label) pairs."""
INTERFACE = ("get_classifier", "reset_classifier", "forward_features", "forward_head")


def domain(name: str, data: Data, test: Data | None = None) -> Domain:
    """Return data as a domain: a fifth validates, and another fifth tests unless test data are given.

    Raises UserError where the data cannot be used.
    """
    train, tested = split(name, data), None if test is None else split(f"{name} test", test)
    generator = torch.Generator().manual_seed(0)
    fifth = max(1, round(HELD_OUT * len(train)))
    if len(train) < 3:
        raise UserError(f"{name} holds {len(train)} samples; give at least three, of which a fifth validates")
    if tested is None:
        tested, train = divided(train, fifth, generator)
    val, train = divided(train, fifth, generator)
    parts = {"train": train, "val": val, "test": tested}
    classes = 1 + max(int(part.y.max()) for part in parts.values())
    digests = {part: _digest(held) for part, held in parts.items()}
    return Domain(name, classes, len(tested), train=train, val=val, test=tested, digests=digests)


def split(name: str, data: Data) -> Split:
    """Return data as one split; raises UserError where shapes or types do not fit."""
    x, y = data if isinstance(data, tuple) else _collected(name, data)
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    if not x.is_floating_point():
        raise UserError(f"{name}: images are {x.dtype}; give floats, normalised as the model is fed them")
    if x.ndim != 4 or x.shape[2] != x.shape[3] or y.shape != x.shape[:1]:
        raise UserError(f"{name}: images {tuple(x.shape)} and labels {tuple(y.shape)}; give [n, c, s, s] and [n]")
    if y.is_floating_point() or int(y.min()) < 0:
        raise UserError(f"{name}: labels must be whole numbers from 0 on")
    return Split(x.detach().float().contiguous(memory_format=torch.channels_last), y.detach().long())


def _collected(name: str, data: Dataset[Any]) -> tuple[Tensor, Tensor]:
    count = len(data) if hasattr(data, "__len__") else 0
    if not count:
        raise UserError(
            f"{name}: a {type(data).__name__} without samples that can be counted; give a map-style data set"
        )
    pairs = [data[i] for i in range(count)]
    try:
        return torch.stack([torch.as_tensor(x) for x, _ in pairs]), torch.tensor([int(y) for _, y in pairs])
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{name}: its items are no (tensor, label) pairs of one shape ({error})") from None


def _digest(held: Split) -> str:
    state = hashlib.sha256(np.ascontiguousarray(held.x.cpu().numpy()).tobytes())
    state.update(held.y.cpu().numpy().tobytes())
    return state.hexdigest()[:16]


class HeldShares(Shares):
    """The images of one cell, of domains that are in memory."""

    def __init__(self, cell: Cell, domains: Mapping[str, Domain]) -> None:
        """Take a recipe and its domains by name."""
        super().__init__(cell, None)
        self._domains = domains

    def _domain(self, name: str) -> Domain:
        return self._domains[name]


@dataclass(frozen=True)
class HeldRunner(Runner):
    """Computes cells on domains that are in memory."""

    domains: Mapping[str, Domain] | None = None

    def bench(self, cell: Cell) -> Bench:
        """Return what a cell works on."""
        bench = super().bench(cell)
        bench.shares = HeldShares(cell, self.domains or {})
        return bench


def pair(
    source: Data, target: Data | None, source_test: Data | None, target_test: Data | None, classes: int
) -> dict[str, Domain]:
    """Return the domains `source` and `target` by name, of a model that tells so many source classes apart.

    Without a target the source stands in its place. Raises UserError where the data cannot be used.
    """
    first = domain("source", source, source_test)
    if first.classes > classes:
        raise UserError(f"source has labels up to {first.classes - 1}; the model tells {classes} classes apart")
    first = replace(first, classes=classes)
    return {"source": first, "target": first if target is None else domain("target", target, target_test)}


def task_of(domains: Mapping[str, Domain], levels: Sequence[Level], guarded: bool = True) -> Task:
    """Return the task of a pair, whose names in recipes hold what decides the data; all images are everybody's."""
    size = int(domains["source"].train.held.shape[-1])
    if (other := int(domains["target"].train.held.shape[-1])) != size:
        raise UserError(f"source images have {size} pixels, target images {other}; give both one size")
    return Task(
        source="source",
        target="target",
        label="source to target",
        image_size=size,
        defended=("target",) if guarded else (),
        shared=True,
        levels=tuple(levels),
    )


def measured(model: nn.Module, source: Domain, device: str) -> Tensor:
    """Return which source test images a model gets right, bool [n]; the model stays as it is."""
    return correct(copy.deepcopy(model).to(device), source.test.to(device))


def declared(model: nn.Module, arch: str | Arch | None = None) -> Arch:
    """Return what builds fresh models of a model's architecture: a timm name with its arguments, or the model itself.

    Without an architecture, a fresh model is a copy in which every module draws its parameters anew as torch does.
    Raises UserError where the model is no classifier, has not timm's interface, does not fit, or keeps parameters that
    nothing draws.
    """
    if reason := CLASSIFYING.unfit(model):
        raise UserError(f"{reason}; name its objective in a suite, `ntbench run` that, and load the folder")
    if lacking := [name for name in INTERFACE if not hasattr(model, name)]:
        raise UserError(f"{type(model).__name__} has no {', '.join(lacking)}; give a model with timm's interface")
    if arch is None:
        return Arch(name=_registered(model))
    found = Arch(name=arch) if isinstance(arch, str) else arch
    try:
        unpack(pack(model), build(found, classes_of(model), 0))
    except ValueError as error:
        raise UserError(f"the model is no {found.name} with {found.params}: {error}") from None
    return found


def classes_of(model: nn.Module) -> int:
    """Return the number of classes that a model's head tells apart."""
    return int(model.get_classifier().out_features)  # type: ignore[operator]


def _registered(model: nn.Module) -> str:
    """Make a model known to timm as an architecture, and return its name."""
    if kept := [name for name, owner in _owners(model) if not callable(getattr(owner, "reset_parameters", None))]:
        raise UserError(f"nothing draws {kept[0]!r} of {type(model).__name__} anew; name its architecture with arch=")
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    name = f"held_{digest([repr(model), shapes])}"
    template = copy.deepcopy(model).cpu()

    def fresh(pretrained: bool = False, num_classes: int = 0, **_: Any) -> nn.Module:
        twin = copy.deepcopy(template)
        if classes_of(twin) != num_classes:
            twin.reset_classifier(num_classes)  # type: ignore[operator]
        for module in twin.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        return twin.requires_grad_(True).train()

    fresh.__name__ = name
    if not timm.is_model(name):
        register_model(fresh)
    return name


def _owners(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for prefix, module in model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            yield ".".join(filter(None, [prefix, name])), module
