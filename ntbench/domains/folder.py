"""Images of one's own: folders of classes, divided or not, and lists of paths and labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ntbench.domains import Family, Labelled, Raw
from ntbench.domains._files import missing
from ntbench.domains._listing import listing
from ntbench.domains._partition import split_given, split_official, split_three
from ntbench.domains._pictures import Framing, read_parts, repeated
from ntbench.types import digest

_SEED = 9991


def _place(name: str) -> tuple[Path, Framing]:
    path, _, options = name.partition(":")[2].partition("?")
    return Path(path).expanduser().resolve(), Framing.parse(options)


def _fingerprint(name: str) -> str:
    parts = listing(name, _place(name)[0]).parts
    rows = [(part, path, label, path.stat()) for part, labelled in parts.items() for path, label in labelled]
    return digest([[part, str(path), label, stat.st_size, stat.st_mtime_ns] for part, path, label, stat in rows])


def _build(name: str, image_size: int) -> Raw:
    place, framing = _place(name)
    found = listing(name, place)
    parts = read_parts(found.parts, found.classes, image_size, framing)
    raw, remark = _divided(name, place, parts, len(found.classes))
    remarks = (remark, found.remark, *repeated(raw))
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


FAMILY = Family(
    version=2,
    domains={
        "folder:PATH": "your own images: PATH/<class> or PATH/train|val|test/<class>, or a .csv of path,label(,split); "
        "`?squash` and `?crop_pct=0.875` at its end change how they are framed",
    },
    build=_build,
    fingerprint=_fingerprint,
)
