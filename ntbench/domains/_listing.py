"""Which image file belongs to which class and part: read from folders, or from a list of paths and labels."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ntbench.domains import PARTS
from ntbench.domains._files import missing
from ntbench.errors import UserError, unknown

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
_ALIASES = {"valid": "val", "validation": "val"}
_LISTS = frozenset({".csv", ".tsv", ".txt"})

Files = list[tuple[Path, str]]


@dataclass(frozen=True)
class Listing:
    """Image files with the names of their classes by part; all are under "" where nobody divided them.

    `classes` are in the order of their labels; `remark` tells of files that were skipped.
    """

    parts: dict[str, Files]
    classes: tuple[str, ...]
    remark: str = ""


def skipped(folders: Iterable[Path], parts: dict[str, Files]) -> str:
    """Return how many files of folders are no images of a class, by their suffixes, or an empty string."""
    taken = {file for part in parts.values() for file, _ in part}
    left = [file for folder in folders for file in _walk(folder) if file not in taken]
    kinds = Counter(path.suffix.lower() or path.name for path in left)
    named = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5))
    return f"files skipped: {len(left)} ({named})" if left else ""


def listing(name: str, path: Path) -> Listing:
    """Return the images of PATH/<class>, PATH/train|val|test/<class>, or of a list; UserError tells what is wrong."""
    if path.is_file():
        return _listed(name, path)
    if not path.is_dir():
        raise missing(name, path, "no such folder: no <class>/*.png, *.jpg, *.webp, *.bmp or *.tif, nor a list of them")
    found = {_ALIASES.get(folder.name, folder.name): folder for folder in _folders(path)}
    if "train" in found and {"val", "test"} & found.keys():
        parts = {part: by_class(name, found[part]) for part in PARTS if part in found}
    else:
        parts = {"": by_class(name, path)}
    return Listing(parts, _classes(name, path, parts), skipped([path], parts))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _walk(folder: Path) -> list[Path]:
    # As torchvision's ImageFolder: links are followed, and a class may have folders of its own.
    return sorted(Path(base) / file for base, _, files in os.walk(folder, followlinks=True) for file in files)


def by_class(name: str, folder: Path) -> Files:
    """Return the images of a folder of classes; UserError where it has fewer than two classes or an empty one."""
    table = {
        inner.name: [file for file in _walk(inner) if file.suffix.lower() in SUFFIXES and file.name[0] != "."]
        for inner in _folders(folder)
    }
    if len(table) < 2:
        raise missing(name, folder, f"fewer than two class folders ({list(table)})")
    if empty := [label for label, files in table.items() if not files]:
        raise missing(name, folder, f"no images for the classes {empty}")
    return [(file, label) for label, files in table.items() for file in files]


def _listed(name: str, file: Path) -> Listing:
    """Read rows of path, label and, where somebody divided them, split; paths count from the list's folder."""
    if file.suffix.lower() not in _LISTS:
        raise UserError(f"domain {name!r}: {file} is no list; give a folder, or a .csv, .tsv or .txt of path and label")
    rows = _rows(file)
    head = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    columns = head if {"path", "label"} <= {*head} else ["path", "label", "split"]
    parts: dict[str, Files] = {}
    for number, cells in rows[1:] if columns is head else rows:
        row = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
        if not row.get("path") or not row.get("label"):
            raise UserError(f"domain {name!r}: {file}, line {number}: {cells} is not path,label or path,label,split")
        part = _ALIASES.get(row.get("split", ""), row.get("split", ""))
        if part not in ("", *PARTS):
            raise UserError(f"domain {name!r}: {file}, line {number}: {unknown('split', part, PARTS)}")
        parts.setdefault(part, []).append((file.parent / row["path"], row["label"]))
    _divided(name, file, parts)
    if absent := [path for part in parts.values() for path, _ in part if not path.is_file()]:
        raise UserError(f"domain {name!r}: {len(absent)} files of {file} are absent, {absent[0]} first; mend its paths")
    return Listing(parts, _classes(name, file, parts))


def numbered(file: Path, folder: Path) -> Files:
    """Read lines of a path in a folder and the number of a class."""
    return [(folder / row[0], row[1]) for _, row in _rows(file)]


def _rows(file: Path) -> list[tuple[int, list[str]]]:
    """Return the cells of every line that is not empty, with its number."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no text in UTF-8 ({error}); save it as such") from None
    if file.suffix.lower() == ".txt":
        cells = [line.rsplit(None, 1) for line in text.splitlines()]
    else:
        cells = list(csv.reader(text.splitlines(), delimiter="\t" if file.suffix.lower() == ".tsv" else ","))
    return [(number, row) for number, row in enumerate(cells, 1) if row]


def _divided(name: str, file: Path, parts: dict[str, Files]) -> None:
    if parts.keys() - {""} and (not {"train"} < parts.keys() or "" in parts):
        said = sorted(part or "(empty)" for part in parts)
        raise UserError(f"domain {name!r}: {file} has the splits {said}; give every line one, train and val or test")


def _classes(name: str, place: Path, parts: dict[str, Files]) -> tuple[str, ...]:
    names = {part: {label for _, label in labelled} for part, labelled in parts.items()}
    trained = names.get("train", names.get("", set()))
    if len(trained) < 2:
        raise missing(name, place, f"fewer than two classes ({sorted(trained)})")
    for part, found in names.items():
        if strange := sorted(found - trained):
            raise UserError(f"domain {name!r}: {part} has the classes {strange}, which train lacks; correct {place}")
    numbered = all(label.isdecimal() for label in trained)
    return tuple(sorted(trained, key=int) if numbered else sorted(trained))
