"""Orders and partitions that keep the class proportions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ntbench.domains import Images, Labelled, Labels, Raw


def stratified_order(labels: Labels, noise: NDArray[np.float64], offsets: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return an order of the samples of which every prefix has nearly the class proportions of the whole.

    The sample of random rank r in a class of N samples stands at (r + u) / N; noise [n] decides the ranks and
    offsets [max label + 1], uniform in [0, 1), give each class its u.
    """
    by_class = np.lexsort((noise, labels))
    sizes = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = (rank + np.repeat(offsets, sizes)) / np.repeat(sizes, sizes)
    return by_class[np.argsort(place, kind="stable")]


def _parts(labels: Labels, cuts: list[int], seed: int) -> list[NDArray[np.intp]]:
    """Return the stratified order by seed, cut in parts, each of them shuffled: no label shows in a sample's place."""
    # RandomState, not default_rng: NumPy promises that its stream never changes between versions (NEP 19).
    random = np.random.RandomState(seed)
    noise, offsets = random.random_sample(len(labels)), random.random_sample(int(labels.max()) + 1)
    return [random.permutation(part) for part in np.split(stratified_order(labels, noise, offsets), cuts)]


def split_three(images: Images, labels: Labels, classes: int, val: int, test: int, seed: int) -> Raw:
    """Draw a test and a validation set of the given sizes from one pool by a fixed seed; the rest is for training."""
    parts = _parts(labels, [test, test + val], seed)
    test_part, val_part, train_part = ((images[part], labels[part]) for part in parts)
    return Raw(classes=classes, train=train_part, val=val_part, test=test_part)


def split_official(train: Labelled, test: Labelled, classes: int, seed: int) -> Raw:
    """Keep the official test set and take the last tenth of the official training set, drawn by seed, to validate."""
    images, labels = train
    parts = _parts(labels, [len(labels) - len(labels) // 10], seed)
    train_part, val_part = ((images[part], labels[part]) for part in parts)
    return Raw(classes=classes, train=train_part, val=val_part, test=test)


def split_given(train: Labelled, val: Labelled, test: Labelled, classes: int, seed: int) -> Raw:
    """Keep three sets that somebody divided; those that methods see are shuffled by seed."""
    train, val = ((part[0][order], part[1][order]) for part in (train, val) for order in _parts(part[1], [], seed))
    return Raw(classes=classes, train=train, val=val, test=test)
