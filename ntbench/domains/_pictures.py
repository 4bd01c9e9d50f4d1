"""Image files of any size as squares of RGB pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import numpy as np

from ntbench.domains import Images, Labelled, Raw
from ntbench.domains._listing import Files
from ntbench.errors import UserError, unknown

if TYPE_CHECKING:
    from PIL.Image import Image

_SCALINGS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


@dataclass(frozen=True)
class Framing:
    """How an image becomes a square: as timm evaluates, or squashed.

    The shorter side is scaled to size / crop_pct, and the centre is cut out.
    """

    squash: bool = False
    crop_pct: float = 1.0
    interpolation: str = "bilinear"

    @staticmethod
    def parse(text: str) -> Framing:
        """Read `squash`, `crop_pct=0.875` and `interpolation=bicubic`, joined by `&`; UserError on anything else."""
        given = dict(parse_qsl(text, keep_blank_values=True))
        for key in given.keys() - Framing.__dataclass_fields__.keys():
            raise unknown("option of a folder", key, Framing.__dataclass_fields__)
        crop, scaling = given.get("crop_pct", "1"), given.get("interpolation", "bilinear")
        if given.get("squash"):
            raise UserError(f"squash={given['squash']}: `squash` takes no value")
        if not _is_share(crop):
            raise UserError(f"crop_pct={crop}: give a number above 0 and up to 1, such as 0.875")
        if scaling not in _SCALINGS:
            raise unknown("interpolation", scaling, _SCALINGS)
        return Framing("squash" in given, float(crop), scaling)


def _is_share(text: str) -> bool:
    try:
        return 0 < float(text) <= 1
    except ValueError:
        return False


def read_all(paths: Sequence[Path], size: int, framing: Framing) -> Images:
    """Return images as uint8 [n, size, size, 3]; UserError at the first that cannot be read."""
    pixels = np.empty((len(paths), size, size, 3), np.uint8)
    for index, path in enumerate(paths):
        pixels[index] = _read(path, size, framing)
    return pixels


def _read(path: Path, size: int, framing: Framing) -> Images:
    from PIL import Image

    try:
        with Image.open(path) as image:
            # Pillow cuts levels of more than eight bits off at 255.
            if image.mode.partition(";")[0] in ("I", "F"):
                raise OSError(f"more than eight bits a channel, mode {image.mode}")
            return np.asarray(_framed(image.convert("RGB"), size, framing))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not a readable image ({error}); remove or replace it") from error


def _framed(image: Image, size: int, framing: Framing) -> Image:
    from PIL.Image import Resampling

    scaling = Resampling[framing.interpolation.upper()]
    if framing.squash:
        return image.resize((size, size), scaling)
    short, side = min(image.size), floor(size / framing.crop_pct)
    width, height = (side if length == short else side * length // short for length in image.size)
    # Python's rounding, to the even one, is what torchvision crops by.
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.resize((width, height), scaling).crop((left, top, left + size, top + size))


def read_parts(files: Mapping[str, Files], labels: Sequence[str], size: int, framing: Framing) -> dict[str, Labelled]:
    """Return images and labels by part; the label of a class is its place among the given ones."""
    numbers = {label: number for number, label in enumerate(labels)}
    return {
        part: (
            read_all([path for path, _ in rows], size, framing),
            np.array([numbers[label] for _, label in rows], dtype=np.int64),
        )
        for part, rows in files.items()
    }


def repeated(raw: Raw) -> Iterator[str]:
    """Tell of images that stand, pixel by pixel, in two splits."""
    for part, other in (("val", "train"), ("test", "train"), ("test", "val")):
        images, labels = getattr(raw, part)
        known: dict[bytes, set[int]] = {}
        for image, label in zip(*getattr(raw, other), strict=True):
            known.setdefault(image.tobytes(), set()).add(label)
        found = [(known.get(image.tobytes()), label) for image, label in zip(images, labels, strict=True)]
        twice = [label in held for held, label in found if held]
        if twice:
            strange = twice.count(False)
            yield f"{len(twice)} of {len(labels)} {part} images are {other} images too, {strange} under another label"
