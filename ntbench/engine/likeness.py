"""What models make by themselves: how far it lies from real images, and some of it to be seen."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from ntbench.learn.drawn import Features, frechet, kid, picture, principal
from ntbench.learn.inception import inception
from ntbench.learn.scoring import made
from ntbench.tasks.data import Split
from ntbench.tasks.objective import Objective

MADE = 300
"""Images that a model makes, from which its distance is worked out."""
NOISES = 3
"""Seeds of noise of which a release makes so many images each; distances differ between them by chance alone."""
SHOWN, ACROSS = 24, 8
"""Those of them that people see, and how many stand in a row."""
Make = Callable[[int], Tensor | None]
"""Gives the finite images that a model makes of noise by a seed, or None."""


def maker(model: nn.Module, objective: Objective, size: int, device: torch.device) -> Make:
    """Return what makes images of a size; None where a model makes none, or some that are not finite."""

    def make(noise: int) -> Tensor | None:
        images = made(model, objective, MADE, size, device, noise)
        return images if images is not None and bool(torch.isfinite(images).all()) else None

    return make


def of_release(make: Make, real: Split) -> tuple[dict[str, tuple[float, ...]], str]:
    """Return both distances from real images by seed of noise, and a picture; nothing of either where there is none."""
    images = [found for noise in range(NOISES) if (found := make(noise)) is not None]
    if len(images) < NOISES:
        return {}, ""
    with _one_thread():
        features = _features(real)
        truth, theirs = features(real.x), [features(part) for part in images]
        frechets, kids = (tuple(far(part, truth) for part in theirs) for far in (frechet, kid))
    return {"frechets": frechets, "kids": kids}, picture(images[0][:SHOWN], ACROSS)


def of_attacker(make: Make, real: Split) -> tuple[float | None, str]:
    """Return the Frechet distance from real images, and a picture; None and nothing where there is none."""
    images = make(0)
    if images is None:
        return None, ""
    with _one_thread():
        features = _features(real)
        far = frechet(features(images), features(real.x))
    return far, picture(images[:SHOWN], ACROSS)


def _features(real: Split) -> Features:
    """Return what tells images apart: a published network where the objective names its file, or their components."""
    file = real.objective.features_file
    return inception(file) if file else principal(real.x)


def _one_thread() -> AbstractContextManager[object]:
    """Keep linear algebra to one thread: it sums in an order that goes by their number, and so do a distance's bits."""
    return threadpool_limits(1, "blas")  # type: ignore[no-any-return]
