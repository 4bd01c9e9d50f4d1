"""MNIST through torchvision, plain and on photographs (MNIST-M)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ntbench.domains import Family, Labelled, Raw
from ntbench.domains._files import data_root, official, verify
from ntbench.domains._partition import split_official
from ntbench.domains._photos import blended

_SEED = 70000
_PROBE = "MNIST/raw/train-images-idx3-ubyte"
_SUMS = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def _build(name: str, image_size: int) -> Raw:
    raw = split_official(_part(name, train=True), _part(name, train=False), classes=10, seed=_SEED)
    return raw if name == "mnist" else blended(raw, _SEED)


def _part(name: str, train: bool) -> Labelled:
    from torchvision.datasets import MNIST

    root = data_root()
    data: Any = official(name, root, _PROBE, lambda download: MNIST(root, train=train, download=download))
    if train:
        # torchvision checks its downloads, not files that were put there by hand.
        verify(name, root / "MNIST" / "raw", _SUMS)
    return data.data.numpy(), data.targets.numpy().astype(np.int64)


FAMILY = Family(
    version=1,
    domains={
        "mnist": "MNIST, 70,000 handwritten digits of 28x28 pixels (files in NTBENCH_DATA, or a download)",
        "mnist_m": "the same digits and partition, blended on patches of scikit-learn's photos (files as mnist)",
    },
    build=_build,
)
