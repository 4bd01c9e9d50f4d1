"""Images of one's own: folders of classes, divided or not, and lists of paths and labels; PACS among them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ntbench.domains import Family, Labelled, Raw
from ntbench.domains._files import data_root, missing
from ntbench.domains._listing import listing
from ntbench.domains._partition import split_given, split_official, split_three
from ntbench.domains._pictures import Framing, read_all, repeated
from ntbench.types import digest

_SEED = 9991


def _place(name: str) -> tuple[Path, Framing]:
    kind, _, rest = name.partition(":")
    if kind != "folder":
        return data_root() / "PACS" / name.removeprefix("pacs_"), Framing()
    path, _, options = rest.partition("?")
    return Path(path).expanduser().resolve(), Framing.parse(options)


def _fingerprint(name: str) -> str:
    parts = listing(name, _place(name)[0]).parts
    rows = [(part, path, label, path.stat()) for part, labelled in parts.items() for path, label in labelled]
    return digest([[part, str(path), label, stat.st_size, stat.st_mtime_ns] for part, path, label, stat in rows])


def _build(name: str, image_size: int) -> Raw:
    place, framing = _place(name)
    found = listing(name, place)
    numbers = {label: number for number, label in enumerate(found.classes)}
    parts = {
        part: (
            read_all([path for path, _ in labelled], image_size, framing),
            np.array([numbers[label] for _, label in labelled], dtype=np.int64),
        )
        for part, labelled in found.parts.items()
    }
    raw, remark = _divided(name, place, parts, len(numbers))
    remarks = (remark, found.remark, *_duplicates(raw))
    return replace(raw, class_names=found.classes, remarks=tuple(filter(None, remarks)))


def _divided(name: str, place: Path, parts: dict[str, Labelled], classes: int) -> tuple[Raw, str]:
    """Return the three splits, and a word where one of them is not the owner's own."""
    first = parts.get("", parts.get("train"))
    assert first is not None
    count = len(first[1])
    if "val" in parts and "test" in parts:
        return split_given(parts["train"], parts["val"], parts["test"], classes, _SEED), ""
    if count < 10:
        raise missing(name, place, f"only {count} images, too few to split {'70/10/20' if '' in parts else '90/10'}")
    if "" in parts:
        return split_three(*first, classes=classes, val=count // 10, test=count // 5, seed=_SEED), ""
    held, rest = ("test", "validation") if "test" in parts else ("val", "no test split: val is scored, validation")
    return split_official(first, parts[held], classes, _SEED), f"{rest} images are a tenth of train"


def _duplicates(raw: Raw) -> Iterator[str]:
    for part, among in (("val", "train"), ("test", "train"), ("test", "val")):
        images, labels = getattr(raw, part)
        count, strange = repeated(images, labels, *getattr(raw, among))
        if count:
            yield f"{count} of {len(labels)} {part} images are {among} images too, {strange} under another label"


_PACS = {"photo": "photographs", "art_painting": "paintings", "cartoon": "cartoons", "sketch": "sketches"}

FAMILY = Family(
    version=2,
    domains={
        **{f"pacs_{key}": f"PACS, {what} of 7 classes (files in NTBENCH_DATA/PACS)" for key, what in _PACS.items()},
        "folder:PATH": "your own images: PATH/<class> or PATH/train|val|test/<class>, or a .csv of path,label(,split); "
        "`?squash` and `?crop_pct=0.875` at its end change how they are framed",
    },
    build=_build,
    fingerprint=_fingerprint,
)
