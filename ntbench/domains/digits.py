"""The digits that come with scikit-learn, plain and on photographs; nothing is downloaded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ntbench.domains import Family, Raw
from ntbench.domains._partition import split_three
from ntbench.domains._photos import blended

_SEED = 1797
# More test images than originals: what chance backgrounds do to a score is averaged out.
_VIEWS = 3


def _build(name: str, image_size: int) -> Raw:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = _double(_double(bunch.images.astype(np.int64), axis=1), axis=2)
    images = np.rint(grey * 255 / 256).astype(np.uint8)
    raw = split_three(images, bunch.target.astype(np.int64), classes=10, val=197, test=400, seed=_SEED)
    return raw if name == "digits" else blended(raw, _SEED, views=_VIEWS)


def _double(images: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
    """Upsample an axis bilinearly to twice its length, times 4: whole numbers are the same on every machine."""
    length = images.shape[axis]
    steps = np.arange(length)
    before = images.take(np.maximum(steps - 1, 0), axis)
    after = images.take(np.minimum(steps + 1, length - 1), axis)
    pairs = np.stack([3 * images + before, 3 * images + after], axis=axis + 1)
    return pairs.reshape(*images.shape[:axis], 2 * length, *images.shape[axis + 1 :])


FAMILY = Family(
    version=2,
    domains={
        "digits": "1,797 handwritten digits of scikit-learn, 8x8 pixels upsampled to 16x16 (embedded)",
        "digits_m": "the same digits on patches of scikit-learn's photos, test digits three times (embedded)",
    },
    build=_build,
)
