"""Small photographs through torchvision: SVHN, CIFAR-10, CIFAR-100 and STL-10."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntbench.domains import Family, Labelled, Raw
from ntbench.domains._files import data_root, official
from ntbench.domains._partition import split_official

_SEED = 10
# STL-10's classes in CIFAR-10's order; its monkey, which CIFAR-10 lacks, takes the place of the frog.
_STL_TO_CIFAR = np.array([0, 2, 1, 3, 4, 5, 7, 6, 8, 9])


def _build(name: str, image_size: int) -> Raw:
    read = _READERS[name]
    train, test = read(data_root(), True), read(data_root(), False)
    return split_official(train, test, classes=100 if name == "cifar100" else 10, seed=_SEED)


def _svhn(root: Path, train: bool) -> Labelled:
    from torchvision.datasets import SVHN

    folder, part = root / "SVHN", "train" if train else "test"
    data: Any = official("svhn", folder, f"{part}_32x32.mat", lambda new: SVHN(folder, split=part, download=new))
    return _channels_last(data.data), np.asarray(data.labels, dtype=np.int64)


def _cifar10(root: Path, train: bool) -> Labelled:
    from torchvision.datasets import CIFAR10

    probe = "cifar-10-batches-py"
    data: Any = official("cifar10", root, probe, lambda new: CIFAR10(root, train=train, download=new))
    return data.data, np.asarray(data.targets, dtype=np.int64)


def _cifar100(root: Path, train: bool) -> Labelled:
    from torchvision.datasets import CIFAR100

    probe = "cifar-100-python"
    data: Any = official("cifar100", root, probe, lambda new: CIFAR100(root, train=train, download=new))
    return data.data, np.asarray(data.targets, dtype=np.int64)


def _stl10(root: Path, train: bool) -> Labelled:
    from torchvision.datasets import STL10

    part = "train" if train else "test"
    data: Any = official("stl10", root, "stl10_binary", lambda new: STL10(root, split=part, download=new))
    return _channels_last(data.data), _STL_TO_CIFAR[data.labels.astype(np.int64)]


def _channels_last(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


_READERS: dict[str, Callable[[Path, bool], Labelled]] = {
    "svhn": _svhn,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "stl10": _stl10,
}

FAMILY = Family(
    version=1,
    domains={
        "svhn": "SVHN, 99,289 house-number digits of 32x32 pixels (files in NTBENCH_DATA, or a download)",
        "cifar10": "CIFAR-10, 60,000 objects of 32x32 pixels (files in NTBENCH_DATA, or a download)",
        "cifar100": "CIFAR-100, 60,000 objects of 32x32 pixels (files in NTBENCH_DATA, or a download)",
        "stl10": "STL-10, 13,000 objects of 96x96 pixels, CIFAR-10's labels (files in NTBENCH_DATA, or a download)",
    },
    build=_build,
)
