"""Domains as fixed splits of tensors, built once and kept in a cache."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache as memoised
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import interpolate

from ntbench.domains import PARTS, Family, Images, Labelled, find
from ntbench.domains._partition import stratified_order
from ntbench.tasks.classification import CLASSIFYING
from ntbench.tasks.objective import Objective
from ntbench.tasks.pixels import floats
from ntbench.types import digest, domain_label

_VERSION = 4
_TOLD = 20
"""How many classes are named in one line."""


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images [n, 3, s, s], channels_last, with y int64 [n]. Features [n, d] fit as well.

    Pixels are held as uint8, a quarter of the memory, and become floats where a batch is made; floats stay floats. The
    objective says what batches hold, and what a model that is trained or scored on them is to do.
    """

    held: Tensor
    y: Tensor
    objective: Objective = field(default=CLASSIFYING, kw_only=True)

    @property
    def x(self) -> Tensor:
        """Return all samples as models take them, float32 in [-1, 1]; a copy of their own where pixels are held."""
        return floats(self.held)

    @property
    def shown(self) -> tuple[int, ...]:
        """Return the shape of what a model is shown of one sample."""
        return self.objective.shown(tuple(self.held.shape[1:]))

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.y)

    def subset(self, indices: Tensor) -> Split:
        """Return a copy of the samples at int64 indices [m], in their order."""
        return replace(self, held=_rows(self.held, indices), y=self.y.index_select(0, indices))

    def unlabelled(self) -> Split:
        """Return the same samples with labels that say nothing: all are -1."""
        return replace(self, y=torch.full_like(self.y, -1))

    def to(self, device: torch.device | str) -> Split:
        """Return the split on a device."""
        return replace(self, held=self.held.to(device), y=self.y.to(device))

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (inputs, targets) without end, always of min(batch_size, n) samples, from one stream of permutations.

        A batch may cross the border of two epochs. ValueError where the split is empty or the size is below 1.
        """
        if batch_size < 1 or not len(self):
            raise ValueError(f"no batches of {batch_size} from {len(self)} samples: both must be at least 1")
        for indices in batch_indices(len(self), batch_size, generator, self.held.device):
            yield self.objective.batch(floats(_rows(self.held, indices)), self.y.index_select(0, indices), generator)

    def whole(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the inputs and targets of all samples, as one batch in their order."""
        return self.objective.batch(self.x, self.y, generator)


def _rows(x: Tensor, indices: Tensor) -> Tensor:
    if x.ndim != 4:
        return x.index_select(0, indices)
    # index_select on [n, 3, s, s] would drop channels_last; on the same memory seen as [n, s, s, 3] it cannot.
    return x.permute(0, 2, 3, 1).index_select(0, indices).permute(0, 3, 1, 2)


def batch_indices(count: int, batch_size: int, generator: torch.Generator, device: torch.device) -> Iterator[Tensor]:
    """Yield the samples of every batch without end, int64 [min(batch_size, n)], from one stream of permutations."""
    size = min(batch_size, count)
    rest = torch.empty(0, dtype=torch.int64, device=device)
    while True:
        fresh = torch.randperm(count, generator=generator, device=generator.device).to(device)
        stream = torch.cat([rest, fresh])
        usable = len(stream) // size * size
        yield from stream[:usable].view(-1, size)
        rest = stream[usable:]


@dataclass(frozen=True, eq=False)
class Domain:
    """A named image distribution with its three fixed splits and 16 hex digits of SHA-256 for each of them.

    Test image i shows original i modulo `originals`. `class_names`, where the family has any, are in the order of the
    labels; `remarks` are what a user ought to know of how the files were read.
    """

    name: str
    classes: int
    originals: int
    train: Split
    val: Split
    test: Split
    digests: dict[str, str]
    class_names: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """Return what was read of the user's own files: the classes with their labels, and the remarks."""
        classes = ", ".join(f"{label} {name}" for label, name in enumerate(self.class_names[:_TOLD]))
        more = f" and {len(self.class_names) - _TOLD} more" if len(self.class_names) > _TOLD else ""
        said = [f"{self.classes} classes: {classes}{more}"] if self.class_names else []
        return [f"{domain_label(self.name)}: {line}" for line in (*said, *self.remarks)]


@memoised
def load_domain(
    name: str, image_size: int, cache: Path | None = None, train: int | None = None, scored: int | None = None
) -> Domain:
    """Return a domain at an image size in pixels, the same bytes every time; a cache folder keeps what was built.

    Of training samples at most `train` are loaded, of validation and of test samples at most `scored`, with the class
    proportions of the split. UserError where the name is unknown, and where files are missing or damaged.
    """
    family = find(name)
    stored = _build(family, name, image_size) if cache is None else _cached(family, name, image_size, cache)
    most = {"train": train, "val": scored, "test": scored}
    digests, originals = _digests(stored), len(stored["test.y"]) // int(stored["views"])
    if scored is not None and scored < len(stored["test.y"]):
        stored |= {f"test.{column}": stored[f"test.{column}"][:originals] for column in "xy"}
        originals = min(originals, scored)
    splits: dict[str, Any] = {part: _split(stored[f"{part}.x"], stored[f"{part}.y"], most[part]) for part in PARTS}
    told: dict[str, Any] = {key: tuple(words) for key, words in json.loads(_told(stored)).items()}
    return Domain(name, int(stored["classes"]), originals, **splits, **told, digests=digests)


def learnt(domain: Domain, objective: Objective) -> Domain:
    """Return a domain as an objective sees it; `classes` is then the number of a model's outputs."""

    here = objective.at(domain.name)

    def seen(split: Split) -> Split:
        return Split(*here.seen(split.held, split.y), objective=here)

    train, val, test = seen(domain.train), seen(domain.val), seen(domain.test)
    return replace(domain, classes=here.outputs(domain.classes), train=train, val=val, test=test)


def nested_subset(split: Split, count: int, generator: torch.Generator) -> Split:
    """Return so many samples with the class proportions of the split.

    For one state of the generator a smaller subset lies inside every larger one. ValueError for counts that the split
    does not have.
    """
    if not 1 <= count <= len(split):
        raise ValueError(f"{count} samples are asked for, of {len(split)}; give a count in between")
    return divided(split, count, generator)[0]


def divided(split: Split, count: int, generator: torch.Generator) -> tuple[Split, Split]:
    """Return so many samples with the class proportions of the split, and the rest."""
    order = _order(split.y, generator)
    # Sorted, since the stratified order itself would give labels away to attacks that get none.
    first, rest = (torch.from_numpy(np.sort(part)).to(split.y.device) for part in (order[:count], order[count:]))
    return split.subset(first), split.subset(rest)


def joined(splits: Sequence[Split]) -> Split:
    """Return the samples of several splits as one."""
    alike = len({split.held.dtype for split in splits}) == 1
    held = torch.cat([split.held if alike else split.x for split in splits])
    held = held.contiguous(memory_format=torch.channels_last)
    return replace(splits[0], held=held, y=torch.cat([split.y for split in splits]))


def _order(y: Tensor, generator: torch.Generator) -> NDArray[np.intp]:
    labels = y.cpu().numpy()
    draws = [
        torch.rand(size, generator=generator, device=generator.device, dtype=torch.float64).cpu().numpy()
        for size in (len(labels), int(labels.max()) + 1)
    ]
    return stratified_order(labels, *draws)


def _split(pixels: Tensor, y: Tensor, most: int | None) -> Split:
    if most is not None and most < len(y):
        chosen = torch.from_numpy(np.sort(_order(y, torch.Generator().manual_seed(0))[:most]))
        pixels, y = pixels[chosen], y[chosen]
    return Split(pixels.permute(0, 3, 1, 2), y)


def _build(family: Family, name: str, image_size: int) -> dict[str, Tensor]:
    """Return what a cache file holds: uint8 pixels [n, s, s, 3] and int64 labels [n] a split, and the class count."""
    raw = family.build(name, image_size)
    told = json.dumps({"class_names": raw.class_names, "remarks": raw.remarks}).encode()
    stored = {"classes": torch.tensor(raw.classes), "views": torch.tensor(raw.views)}
    stored["told"] = torch.frombuffer(bytearray(told), dtype=torch.uint8)
    for part in PARTS:
        labelled: Labelled = getattr(raw, part)
        stored |= {f"{part}.x": _resized(labelled[0], image_size), f"{part}.y": torch.from_numpy(labelled[1])}
    return stored


def _resized(images: Images, size: int, chunk: int = 4096) -> Tensor:
    """Return uint8 [n, size, size, 3]: whole levels, so that rounding differences of machines leave no trace."""
    out = torch.empty(len(images), size, size, 3, dtype=torch.uint8)
    for start in range(0, len(images), chunk):
        pixels = torch.tensor(images[start : start + chunk])
        pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
        smooth = interpolate(pixels.float(), size=(size, size), mode="bilinear", antialias=True)
        out[start : start + chunk] = smooth.round().clamp(0, 255).permute(0, 2, 3, 1)
    return out


def _digests(stored: dict[str, Tensor]) -> dict[str, str]:
    """Return 16 hex digits a split of SHA-256 over the shape, the uint8 pixels [n, s, s, 3] and the labels."""
    found = {}
    for part in PARTS:
        pixels, labels = stored[f"{part}.x"], stored[f"{part}.y"]
        state = hashlib.sha256(repr(tuple(pixels.shape)).encode())
        state.update(pixels.numpy().tobytes())
        state.update(labels.numpy().tobytes())
        found[part] = state.hexdigest()[:16]
    return found


def _told(stored: dict[str, Tensor]) -> str:
    return stored["told"].numpy().tobytes().decode()


def _metadata(stored: dict[str, Tensor]) -> dict[str, str]:
    return _digests(stored) | {"told": _told(stored)} | {name: str(int(stored[name])) for name in ("classes", "views")}


def _cached(family: Family, name: str, image_size: int, folder: Path) -> dict[str, Tensor]:
    key = digest([_VERSION, family.version, name, image_size, family.fingerprint(name)])
    file = folder / f"{re.sub(r'[^A-Za-z0-9_.]+', '-', name)[-80:]}-{image_size}-{key}.safetensors"
    stored = _read(file)
    if stored is None:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            # Another process may have built it while this one waited.
            stored = _read(file)
            if stored is None:
                stored = _build(family, name, image_size)
                _write(file, stored)
    return stored


def _write(file: Path, stored: dict[str, Tensor]) -> None:
    unfinished = file.with_suffix(".tmp")
    save_file(stored, unfinished, metadata=_metadata(stored))
    os.replace(unfinished, file)


def _read(file: Path) -> dict[str, Tensor] | None:
    """Return the content of a cache file, or None where it is absent or is not what was written."""
    if not file.exists():
        return None
    try:
        with safe_open(file, framework="pt") as content:
            stored = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118
            return stored if content.metadata() == _metadata(stored) else None
    except (SafetensorError, KeyError):
        return None
