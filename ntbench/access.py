"""What methods ask for, as values and in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ntbench.types import Track


@dataclass(frozen=True)
class Access:
    """What an attack asks for: a share of the labelled source images, and target images with labels, without, or none.

    With `pool` it also holds, without labels, all target images that attackers' samples are drawn from. Without
    `weights` the protected model comes as a black box, which answers images with logits and holds no weights.
    """

    source: bool = False
    target: Literal["labelled", "unlabelled"] | None = "labelled"
    weights: bool = True
    pool: bool = False

    @property
    def track(self) -> Track:
        """Return the track that the attack belongs to."""
        if not self.weights:
            return "queries"
        if self.source:
            return "source"
        if self.target != "labelled":
            return "unlabelled"
        return "semi-supervised" if self.pool else "target"

    def needs(self) -> str:
        """Return in words what the attack asks for."""
        target = {"labelled": "target labels", "unlabelled": "target images", None: ""}[self.target]
        needed = {
            "source labels": self.source,
            target: self.target is not None,
            "more target images": self.pool,
            "answers of a black box": not self.weights,
        }
        return ", ".join(name for name, asked in needed.items() if asked)


def defense_needs(source: bool, target: bool, labels: bool) -> str:
    """Return in words which data a defense asks for: the source, target images, and their labels with them."""
    needed = {"source labels": source, "target labels" if labels else "target images": target}
    return ", ".join(name for name, asked in needed.items() if asked) or "nothing"
