"""What an attack gets to see of a released model and of its data, and what it is scored on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from ntbench.engine.subject import released_head
from ntbench.learn.meter import Meter
from ntbench.learn.models import encoded
from ntbench.method import Attack
from ntbench.tasks.data import Split

KEPT = 2


@dataclass(frozen=True, eq=False)
class View:
    """An attacker's samples, and what scores it; for an attack on the head alone these are features.

    `weights` are then those of the head; `samples` and `flops` are what encoding the attacker's samples cost.
    """

    subset: Split
    val: Split
    test: Split
    held: Split | None
    weights: dict[str, Tensor] = field(default_factory=dict)
    samples: int = 0
    flops: int = 0


class Encoder:
    """The features that one released model gives to images; each split is encoded once."""

    def __init__(self, model: nn.Module) -> None:
        """Take the model; nothing is encoded yet."""
        self._model = model
        self._known: dict[str, Tensor] = {}

    def __call__(self, name: str, split: Split) -> Split:
        """Return the features of a split, kept under a name."""
        if name not in self._known:
            self._known[name] = encoded(self._model, split.x)
        return Split(self._known[name], split.y)


_encoders: OrderedDict[tuple[str, str], Encoder] = OrderedDict()


def view_of(attack: Attack, model: nn.Module, splits: Sequence[Split | None], key: tuple[str, str]) -> View:
    """Return what an attack may see: its samples, validation and test data, and what it puts aside.

    Attacks on features share what this process has encoded of validation and test data: the key tells released models
    and tasks apart.
    """
    subset, val, test, held = splits
    assert subset is not None and val is not None and test is not None
    if not attack.on_features:
        return View(subset, val, test, held)
    encoder = _encoders.setdefault(key, Encoder(model))
    while len(_encoders) > KEPT:
        _encoders.popitem(last=False)
    with Meter(subset.shown) as meter:
        features = Split(encoded(model, subset.x), subset.y)
    aside = held and Split(encoded(model, held.x), held.y)
    seen = encoder("val", val), encoder("test", test)
    return View(features, *seen, aside, released_head(model), meter.cost.samples, meter.cost.flops)
