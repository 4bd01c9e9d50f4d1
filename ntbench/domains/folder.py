"""Image folders PATH/<class>/*.png, *.jpg or *.jpeg: PACS, and any folder of the user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ntbench.domains import Family, Images, Raw
from ntbench.domains._files import data_root, missing
from ntbench.domains._partition import split_three
from ntbench.errors import UserError
from ntbench.types import digest

_SEED = 9991
_SUFFIXES = {".png", ".jpg", ".jpeg"}


def _folder(name: str) -> Path:
    kind, _, path = name.partition(":")
    return Path(path).expanduser().resolve() if kind == "folder" else data_root() / "PACS" / name.removeprefix("pacs_")


def _classes(name: str) -> dict[str, list[Path]]:
    """Return the sorted image paths of every class by its name, in sorted order."""
    folder = _folder(name)
    if not folder.is_dir():
        raise missing(name, folder, "no such folder: no <class>/*.png, *.jpg or *.jpeg")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    table = {
        label: sorted(path for path in (folder / label).iterdir() if path.suffix.lower() in _SUFFIXES)
        for label in names
    }
    if len(table) < 2:
        raise missing(name, folder, f"fewer than two class folders ({names})")
    if empty := [label for label, paths in table.items() if not paths]:
        raise missing(name, folder, f"no images for the classes {empty}")
    return table


def _fingerprint(name: str) -> str:
    paths = [path for paths in _classes(name).values() for path in paths]
    return digest([[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths])


def _build(name: str, image_size: int) -> Raw:
    table = _classes(name)
    images = np.stack([_read(path, image_size) for paths in table.values() for path in paths])
    labels = np.repeat(np.arange(len(table)), [len(paths) for paths in table.values()]).astype(np.int64)
    if len(labels) < 10:
        raise missing(name, _folder(name), f"only {len(labels)} images, too few to split 70/10/20")
    val, test = len(labels) // 10, len(labels) // 5
    return split_three(images, labels, classes=len(table), val=val, test=test, seed=_SEED)


def _read(path: Path, image_size: int) -> Images:
    """Return an image of any size as a square of RGB pixels: here, since arrays need one common size."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((image_size, image_size), Image.Resampling.BILINEAR))
    except OSError as error:
        raise UserError(f"{path} is not a readable image ({error}); remove or replace it") from error


_PACS = {"photo": "photographs", "art_painting": "paintings", "cartoon": "cartoons", "sketch": "sketches"}

FAMILY = Family(
    version=1,
    domains={
        **{f"pacs_{key}": f"PACS, {what} of 7 classes (files in NTBENCH_DATA/PACS)" for key, what in _PACS.items()},
        "folder:PATH": "your own images: PATH/<class>/*.png, *.jpg or *.jpeg, split 70/10/20 by a fixed seed",
    },
    build=_build,
    fingerprint=_fingerprint,
)
