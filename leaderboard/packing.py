"""What is too much to be read as it stands: costs as compressed JSON, and what images add to scores, bits or numbers.

`packed` text is base64 of zlib of JSON. What runs have of images [run, image] is compressed image by image, since
images that are hard for one run are hard for most. A colon stands before numbers, as `pack_scores` has it.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from math import lcm
from typing import Any

import numpy as np

from ntbench.types import pack_bits, pack_scores, unpack_bits, unpack_scores

MOST = 1_000_000
"""The most images that a score is taken to be a share of."""
NUMBERS = ":"
"""What tells numbers from bits."""
DAMAGED = (ValueError, zlib.error, binascii.Error)


def packed(value: Any) -> str:
    """Return a JSON-able value as text."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def unpacked(text: str) -> Any:
    """Return what `packed` packed; raises one of DAMAGED where it is none of that."""
    return json.loads(zlib.decompress(base64.b64decode(text, validate=True)))


def packed_bits(runs: Sequence[str], images: int) -> str:
    """Return runs, each as `pack_bits` packs it, as one text."""
    if not runs:
        return ""
    right = np.array([unpack_bits(run, images) for run in runs])
    return base64.b64encode(zlib.compress(np.packbits(right.T).tobytes(), 9)).decode()


def unpacked_bits(text: str, count: int, images: int) -> list[str]:
    """Return so many runs, each as `pack_bits` packs it; raises one of DAMAGED where there are not as many."""
    held = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)) if text else b"", dtype=np.uint8)
    if len(held) != -(-count * images // 8):
        raise ValueError(f"{len(held)} bytes are no bits of {count} runs on {images} images")
    right = np.unpackbits(held, count=count * images).astype(bool).reshape(images, count).T
    return [pack_bits(run) for run in right]


def packed_each(runs: Sequence[str], images: int, numbers: bool) -> str:
    """Return runs, each as `pack_scores` packs it, as one text: of numbers, two bytes each, or else of bits."""
    if not numbers:
        return packed_bits(runs, images)
    each = np.array([unpack_scores(run, images) for run in runs], dtype="<f2").reshape(len(runs), images)
    return NUMBERS + base64.b64encode(zlib.compress(each.T.tobytes(), 9)).decode()


def unpacked_each(text: str, count: int, images: int) -> list[str]:
    """Return so many runs, each as `pack_scores` packs it; raises one of DAMAGED where there are not as many."""
    if not text.startswith(NUMBERS):
        return unpacked_bits(text, count, images)
    held = zlib.decompress(base64.b64decode(text[1:], validate=True))
    if len(held) != 2 * count * images:
        raise ValueError(f"{len(held)} bytes are no numbers of {count} runs on {images} images")
    return [pack_scores(run) for run in np.frombuffer(held, dtype="<f2").reshape(images, count).T]


def mean_of(text: str, images: int) -> tuple[float, float]:
    """Return the mean of what images add to a score, and how far from the score the rounding of numbers may lead it."""
    each = unpack_scores(text, images)
    rounding = np.spacing(np.abs(each).astype(np.float16)).astype(np.float64) / 2
    return float(each.mean()), float(rounding.mean()) if text.startswith(NUMBERS) else 0.0


@lru_cache(maxsize=10_000)
def stand_in(score: float, images: int, numbers: bool = False) -> str:
    """Return bits or numbers of the same score for a run of which no number needs to know what each image adds."""
    return pack_scores(np.full(images, score)) if numbers else pack_bits(np.arange(images) < round(score * images))


def shares_of(scores: Iterable[float], images: int = 0) -> int:
    """Return of how many images all scores are exact shares, the given number where it serves, 0 where none does."""
    values = sorted(set(scores))
    parts = [Fraction(value).limit_denominator(10_000).denominator for value in values]
    for whole in ([images] if images else []) + [lcm(*parts)]:
        if whole <= MOST and all(round(value * whole) / whole == value for value in values):
            return whole
    return 0
