"""What an attack gets to see of a released model and of its data, and what it is scored on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ntbench.learn.models import BlackBox, Head, encoded, head
from ntbench.learn.train import Meter
from ntbench.method import Attack
from ntbench.tasks.data import Split

KEPT = 2


@dataclass(frozen=True, eq=False)
class View:
    """What an attack works on and is scored on: a model and images, or its head and features that cost FLOPs."""

    model: nn.Module
    subset: Split
    val: Split
    test: Split
    flops: int


class Encoder:
    """The features that one released model gives to splits; each split is encoded once."""

    def __init__(self, model: nn.Module) -> None:
        """Take the model; nothing is encoded yet."""
        self._model = model
        self._known: dict[object, tuple[Split, int]] = {}

    def __call__(self, name: object, split: Split) -> tuple[Split, int]:
        """Return the features of the split of this name, and the FLOPs that they cost."""
        if name not in self._known:
            with Meter() as meter:
                features = encoded(self._model, split.x)
            self._known[name] = Split(features, split.y), meter.flops
        return self._known[name]


_encoders: OrderedDict[str, Encoder] = OrderedDict()


def view_of(attack: Attack, model: nn.Module, splits: Sequence[Split], key: tuple[str, float]) -> View:
    """Return what an attack may see of a model and of the splits (its samples, validation and test data).

    Attacks on features share what this process has encoded: the key tells released models and subsets apart.
    """
    if not attack.on_features:
        subset, val, test = splits
        return View(model if attack.access.weights else BlackBox(model), subset, val, test, 0)
    released, ratio = key
    encoder = _encoders.setdefault(released, Encoder(model))
    while len(_encoders) > KEPT:
        _encoders.popitem(last=False)
    (subset, flops), (val, _), (test, _) = (
        encoder(name, part) for name, part in zip((ratio, "val", "test"), splits, strict=True)
    )
    return View(Head(head(model)), subset, val, test, flops)
