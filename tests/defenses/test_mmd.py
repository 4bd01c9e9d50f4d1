"""The memory of the maximum mean discrepancy: that of the n x n distances, whatever the width of the features."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from toys import draw

mmd = import_module("ntbench.defenses._mmd").mmd

FLOAT = 4


def allocated(n: int, d: int) -> tuple[int, int]:
    """Return the bytes of the largest single allocation, and of all together, of an MMD and its gradient."""
    a, b = draw(n, d).requires_grad_(), draw(n, d, seed=1)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        mmd(a, b).backward()
    sizes = [size for event in seen.events() if (size := event.self_cpu_memory_usage) > 0]
    return max(sizes), sum(sizes)


@pytest.mark.parametrize(("n", "d"), [(16, 2000), (32, 500), (64, 3)])
def test_no_allocation_holds_differences_of_features(n: int, d: int) -> None:
    """A difference for every pair would be [2n, 2n, d]; the stack of kernels and the joined features are the most."""
    largest, total = allocated(n, d)
    joined, distances = FLOAT * 2 * n * d, FLOAT * (2 * n) ** 2
    assert largest <= max(2 * joined, 6 * distances)
    assert total <= 16 * joined + 80 * distances


def test_memory_grows_with_the_width_as_the_features_do() -> None:
    n, narrow, wide = 32, 1000, 4000
    growth = allocated(n, wide)[1] - allocated(n, narrow)[1]
    assert growth <= 16 * FLOAT * 2 * n * (wide - narrow)


def test_features_whose_differences_would_fit_into_no_memory() -> None:
    """Between these 2048 samples the differences would fill 256 GiB, and the features take 128 MiB."""
    torch.testing.assert_close(mmd(torch.zeros(1024, 2**14), torch.zeros(1024, 2**14)), torch.tensor(0.0))
