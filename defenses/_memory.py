"""Class means over a whole data set, of values that training sees a batch at a time."""

import torch
from torch import Tensor

from ntbench.method import Split


def numbered(split: Split) -> Split:
    """Return a split whose labels are the indices of its samples."""
    return Split(split.x, torch.arange(len(split), device=split.y.device))


class ClassMemory:
    """Holds the value last seen of every sample, and the sum of each class, which a refresh changes by differences."""

    def __init__(self, values: Tensor, labels: Tensor, classes: int) -> None:
        """Start from values [n, d] of samples with labels [n]."""
        self._values, self._labels = values.clone(), labels
        self._sums = values.new_zeros(classes, values.shape[1]).index_add_(0, labels, values)
        self._counts = labels.bincount(minlength=classes).clamp_min(1)[:, None]

    def refresh(self, indices: Tensor, values: Tensor) -> None:
        """Put in new values [m, d] of the samples at indices [m]; of a sample that comes twice, the first counts."""
        # A batch across the border of two epochs may hold a sample twice, and the order of such writes is undefined.
        first = (indices[:, None] == indices).int().argmax(1) == torch.arange(len(indices), device=indices.device)
        indices, values = indices[first], values.detach()[first]
        self._sums.index_add_(0, self._labels[indices], values - self._values[indices])
        self._values[indices] = values

    def means(self) -> Tensor:
        """Return the class means [classes, d], 0 where a class has no samples."""
        return self._sums / self._counts
