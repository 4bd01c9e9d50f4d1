"""A task played with what one defender holds, so that it can tell before releasing what an attacker would get.

The roles of the real task are filled anew. A fifth of the source's training images scores the source; the model is
trained on the others. The target is the defender's own share of what it guards, of which the validation part scores and
the rest is divided into a defender's share and an attackers' pool; or, for a defender without target labels, it is made
from the source: its images over fields of colour, as MNIST-M is made over photos.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch.nn import functional as F

from ntbench.engine.shares import HELD_OUT, Shares
from ntbench.tasks.data import Domain, Split, divided
from ntbench.types import Cell, digest

FIELD = 4
"""Pixels a side of a field of colour before it is stretched over an image."""


class Rehearsal(Shares):
    """The images of one cell of a rehearsal; no test image and nothing of an attacker's is among them."""

    def __init__(self, cell: Cell, cache: Path | None) -> None:
        """Take a recipe; data is loaded when it is first asked for."""
        super().__init__(cell, cache)
        self._real = Shares(cell.model_copy(update={"task": cell.task.model_copy(update={"rehearsal": None})}), cache)

    @cached_property
    def source(self) -> Domain:
        """Return the source, whose test images are a fifth of its training images, which nobody trains on."""
        real = self._real.source
        # Rehearsals of one source share a pretrained model, so nothing of the target may decide the division.
        seed = int(digest(["rehearsal", real.name, self._cell.seed]), 16) % 2**63
        chance = torch.Generator().manual_seed(seed)
        test, train = divided(real.train, round(HELD_OUT * len(real.train)), chance)
        return replace(real, train=train, test=test, originals=len(test))

    @property
    def origin(self) -> Domain:
        """Return the domain that the model is pretrained on."""
        return self.source

    @cached_property
    def target(self) -> Domain:
        """Return the target, whose validation images are its test images."""
        made = self._cell.task.rehearsal == "source"
        train, val = (self._recoloured("train"), self._recoloured("val")) if made else self._real.defenders
        assert train is not None and val is not None
        classes = self.source.classes if made else self._real.guarded_classes
        return Domain(self._cell.task.target, classes, len(val), train, val, val, {})

    @cached_property
    def defenders(self) -> tuple[Split | None, Split | None]:
        """Return what a defender trains on and validates on."""
        return self._defenders(self._cell.task.target)

    @property
    def guarded_classes(self) -> int:
        """Return the number of classes of the target."""
        return self.target.classes

    def _domain(self, name: str) -> Domain:
        return self.target

    def _recoloured(self, part: str) -> Split:
        split: Split = getattr(self.source, part)
        return recoloured(split, self._generator(f"colours of {part}"))


def recoloured(split: Split, generator: torch.Generator) -> Split:
    """Return images as their difference from smooth random fields of colour, channels_last in [-1, 1] as they were."""
    x = split.x
    coarse = torch.rand(len(split), x.shape[1], FIELD, FIELD, generator=generator)
    fields = F.interpolate(coarse, size=x.shape[-2:], mode="bilinear")
    x = ((x + 1) / 2 - fields).abs() * 2 - 1
    return replace(split, held=x.contiguous(memory_format=torch.channels_last))


def shares_of(cell: Cell, cache: Path | None) -> Shares:
    """Return who holds which images of a cell."""
    return (Rehearsal if cell.task.rehearsal else Shares)(cell, cache)
