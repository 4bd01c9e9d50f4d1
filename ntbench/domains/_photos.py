"""The MNIST-M recipe (Ganin et al., JMLR 2016): digits blended on random patches of photographs."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ntbench.domains import Images, Labelled, Raw


def blended(raw: Raw, seed: int, views: int = 1) -> Raw:
    """Blend every image [n, h, w] of a domain on its own photo patch; the partition and the labels stay.

    Test images are blended `views` times, each time on other patches.
    """
    # RandomState, not default_rng: NumPy promises that its stream never changes between versions (NEP 19).
    random = np.random.RandomState(seed)
    photos = _photos()

    def blend(part: Labelled) -> Labelled:
        images, labels = part
        return _blend(images, photos, random), labels

    train, val = blend(raw.train), blend(raw.val)
    tests = [blend(raw.test) for _ in range(views)]
    images, labels = (np.concatenate(parts) for parts in zip(*tests, strict=True))
    return Raw(classes=raw.classes, train=train, val=val, test=(images, labels), views=views)


def _photos() -> list[Images]:
    from sklearn.datasets import load_sample_images

    return list(load_sample_images().images)


def _blend(images: Images, photos: list[Images], random: np.random.RandomState) -> Images:
    """Return |patch - image| per channel, uint8 [n, h, w, 3]."""
    count, height, width = images.shape
    chosen = random.randint(len(photos), size=count)
    places = random.random_sample((count, 2))
    patches = np.empty((count, height, width, 3), np.uint8)
    for index, photo in enumerate(photos):
        mine = chosen == index
        windows = sliding_window_view(photo, (height, width), axis=(0, 1))
        rows, columns = (places[mine] * windows.shape[:2]).astype(int).T
        patches[mine] = windows[rows, columns].transpose(0, 2, 3, 1)
    figures = images[..., None]
    # |a - b| without leaving uint8: MNIST's patches alone fill 130 MB.
    return np.maximum(patches, figures) - np.minimum(patches, figures)
