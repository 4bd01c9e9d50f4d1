"""Class means that a memory keeps, against an explicit loop."""

from importlib import import_module

import torch
from toys import draw

memory = import_module("ntbench.defenses._memory")


def test_class_means_follow_an_explicit_memory() -> None:
    labels, values = torch.arange(20) % 3, draw(20, 4)
    held = memory.ClassMemory(values, labels, 5)
    truth = values.clone()
    for step in range(50):
        indices = torch.randint(20, (8,), generator=torch.Generator().manual_seed(step))
        new = draw(8, 4, seed=step)
        held.refresh(indices, new)
        for index, value in reversed(list(zip(indices.tolist(), new, strict=True))):
            truth[index] = value
    for k in range(3):
        assert torch.allclose(held.means()[k], truth[labels == k].mean(0), atol=1e-5)
    assert not held.means()[3:].any()
