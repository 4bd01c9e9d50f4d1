"""USPS through torchvision."""

from __future__ import annotations

from typing import Any

import numpy as np

from ntbench.domains import Family, Labelled, Raw
from ntbench.domains._files import data_root, official
from ntbench.domains._partition import split_official
from ntbench.errors import UserError

_SEED = 9298
# The labels' published counts: torchvision checks its downloads, not files that were packed and put there by hand.
_COUNTS = {
    True: [1194, 1005, 731, 658, 652, 556, 664, 645, 542, 644],
    False: [359, 264, 198, 166, 200, 160, 170, 147, 166, 177],
}


def _build(name: str, image_size: int) -> Raw:
    return split_official(_part(name, train=True), _part(name, train=False), classes=10, seed=_SEED)


def _part(name: str, train: bool) -> Labelled:
    from torchvision.datasets import USPS

    root = data_root() / "USPS"
    probe = "usps.bz2" if train else "usps.t.bz2"
    data: Any = official(name, root, probe, lambda download: USPS(root, train=train, download=download))
    labels = np.asarray(data.targets, dtype=np.int64)
    counts = np.bincount(labels, minlength=10).tolist()
    if counts != _COUNTS[train]:
        raise UserError(f"domain {name!r}: {root / probe} has {counts} images a class, not {_COUNTS[train]}; delete it")
    return data.data, labels


FAMILY = Family(
    version=1,
    domains={"usps": "USPS, 9,298 handwritten digits of 16x16 pixels (files in NTBENCH_DATA, or a download)"},
    build=_build,
)
