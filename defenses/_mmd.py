"""The maximum mean discrepancy between two batches of features."""

import torch
from torch import Tensor

_WIDTHS = 5


def mmd(a: Tensor, b: Tensor) -> Tensor:
    """Return the biased squared MMD of a [n, d] and b [n, d] under a sum of five Gaussian kernels, at most 10.

    The mean of k(a, a) + k(b, b) - k(a, b) - k(b, a) with k = sum_i exp(-|x - y|^2 / (2^i w)), i = 0..4, where w is
    a fourth of the mean squared distance between different samples (NTL). Distances come from the Gram matrix, so
    memory is n^2. ValueError where the batches differ in size.
    """
    if a.shape != b.shape:
        raise ValueError(f"batches of shapes {tuple(a.shape)} and {tuple(b.shape)}: draw as many samples from both")
    x = torch.cat([a, b])
    squares = x.square().sum(1)
    distances = (squares[:, None] + squares - 2 * x @ x.T).clamp_min(0)
    width = distances.detach().sum() / (len(x) * (len(x) - 1)) / 2 ** (_WIDTHS // 2)
    scaled = distances / width.clamp_min(torch.finfo(x.dtype).tiny)
    kernel = torch.stack([(-scaled / 2**i).exp() for i in range(_WIDTHS)]).sum(0)
    n = len(a)
    return (kernel[:n, :n] + kernel[n:, n:] - kernel[:n, n:] - kernel[n:, :n]).mean()
