"""Data sets of the papers by name, from the files that their authors laid out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ntbench.domains import PARTS, Family, Labelled, Raw
from ntbench.domains._benchmarks import BENCHMARKS, Benchmark, benchmark
from ntbench.domains._files import data_root, missing
from ntbench.domains._listing import Files, by_class, numbered, skipped
from ntbench.domains._partition import split_given, split_official, split_three
from ntbench.domains._pictures import Framing, read_parts, repeated
from ntbench.errors import UserError
from ntbench.types import digest

_SEED = 9991


def place_of(name: str) -> Path:
    """Return the folder that a domain's files lie in or would lie in."""
    roots = [data_root() / root for root in _family(name).roots]
    first = _family(name).domains[name][0].partition("@")[0].split("|")
    return next((root for root in roots for part in first if (root / part).exists()), roots[0])


def _family(name: str) -> Benchmark:
    found = benchmark(name)
    assert found is not None
    return found


def _files(name: str, place: Path) -> dict[str, Files]:
    """Return the image files of a domain with the names or numbers of their classes, by part."""
    said = {part: where for part, where in zip(PARTS, _family(name).domains[name], strict=True) if where}
    if _family(name).title == "CelebA":
        return _celeba(name, place, said["train"])
    found = {}
    for part, where in said.items():
        file, at, folder = where.partition("@")
        there = _present(name, place, file)
        found[part] = numbered(there, place / folder) if at else by_class(name, there)
    return found


def _present(name: str, place: Path, said: str) -> Path:
    paths = [place / part for part in said.split("|")]
    found = next((path for path in paths if path.exists()), None)
    if found is None:
        raise missing(name, paths[0], f"nothing there, and `ntbench data get {name}` tells how to come by it; looked")
    return found


def _celeba(name: str, place: Path, attribute: str) -> dict[str, Files]:
    """Divide by CelebA's own partition, by one of its forty attributes, which are -1 or 1."""
    table = _present(name, place, "list_attr_celeba.txt").read_text(encoding="ascii").splitlines()
    column = table[1].split().index(attribute) + 1
    values = {cells[0]: cells[column] for cells in map(str.split, table[2:])}
    found: dict[str, Files] = {part: [] for part in PARTS}
    for file, part in numbered(_present(name, place, "list_eval_partition.txt"), place / "img_align_celeba"):
        found[PARTS[int(part)]].append((file, "yes" if values[file.name] == "1" else "no"))
    return found


def _matrix(file: Path) -> Labelled:
    """Read a MATLAB file as SVHN's: X [h, w, 3, n] and y [n, 1], where 10 may stand for the digit 0."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        held = loadmat(file)
        images, labels = held["X"].transpose(3, 0, 1, 2), held["y"].reshape(-1)
    except (MatReadError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}); delete it and get it again") from None
    return np.ascontiguousarray(images), labels.astype(np.int64) % 10


def _matrices(name: str, place: Path) -> dict[str, Path]:
    """Return the MATLAB files of a domain by part, of one that comes in such files."""
    said = dict(zip(PARTS, _family(name).domains[name], strict=True))
    return {part: _present(name, place, file) for part, file in said.items() if file.endswith(".mat")}


def _fingerprint(name: str) -> str:
    place = place_of(name)
    files = [*_matrices(name, place).values()] or [path for part in _files(name, place).values() for path, _ in part]
    stats = [(path, path.stat()) for path in files]
    return digest([[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in stats])


def _build(name: str, image_size: int) -> Raw:
    family, place = _family(name), place_of(name)
    labels = _labels(family)
    if matrices := _matrices(name, place):
        return _divided({part: _matrix(file) for part, file in matrices.items()}, labels)
    files = _files(name, place)
    if strange := sorted({label for part in files.values() for _, label in part} - {*labels}):
        raise UserError(
            f"domain {name!r}: {place} has the classes {strange[:5]}, which {family.title} lacks; remove them"
        )
    raw = _divided(read_parts(files, labels, image_size, Framing()), _names(family, files))
    folders = [place / where for said in family.domains[name] for where in said.split("|") if where]
    return replace(raw, remarks=tuple(filter(None, (skipped(folders, files), *repeated(raw)))))


def _labels(family: Benchmark) -> tuple[str, ...]:
    return family.classes if isinstance(family.classes, tuple) else tuple(map(str, range(family.classes)))


def _names(family: Benchmark, files: dict[str, Files]) -> tuple[str, ...]:
    """Return the names of classes; those of numbers are the folders that their images lie in, one for each."""
    labels = _labels(family)
    if isinstance(family.classes, tuple):
        return labels
    folders: dict[str, set[str]] = {}
    for path, label in (row for part in files.values() for row in part):
        folders.setdefault(label, set()).add(path.parent.name)
    told = {label: min(names) for label, names in folders.items() if len(names) == 1}
    return tuple(told.get(label, label) for label in labels)


def _divided(parts: dict[str, Labelled], names: tuple[str, ...]) -> Raw:
    count, train = len(names), parts["train"]
    if "val" in parts:
        raw = split_given(train, parts["val"], parts["test"], count, _SEED)
    elif "test" in parts:
        raw = split_official(train, parts["test"], count, _SEED)
    else:
        size = len(train[1])
        raw = split_three(*train, classes=count, val=size // 10, test=size // 5, seed=_SEED)
    return replace(raw, class_names=names)


def _line(family: Benchmark, name: str) -> str:
    part = family.domains[name][0].partition("|")[0]
    what = f"{family.title}, {part}" if len(family.domains) > 1 else family.title
    return f"{what}: {len(_labels(family))} classes (files in NTBENCH_DATA/{family.roots[0]})"


FAMILY = Family(
    version=1,
    domains={name: _line(family, name) for family in BENCHMARKS for name in family.domains},
    build=_build,
    fingerprint=_fingerprint,
)
