"""What a domain of somebody's own keeps: it builds what it should, and the same images twice."""

from __future__ import annotations

from ntbench.domains import PARTS, Dataset, Raw

SIZE = 16


def check_builds_the_same_twice(cls: type[Dataset]) -> str:
    """A domain builds images as they should be at 16 pixels, and the same ones twice; say which."""
    built, again = (cls.family().build(cls.name, SIZE) for _ in range(2))
    if _bytes(built) != _bytes(again):
        raise AssertionError("builds other images the second time; take random numbers from a seed of its own")
    counts = ", ".join(f"{len(getattr(built, part)[1])} {part}" for part in PARTS)
    return f"builds the same images twice: {counts}, {built.classes} classes"


def _bytes(raw: Raw) -> list[bytes]:
    return [array.tobytes() for part in PARTS for array in getattr(raw, part)]
