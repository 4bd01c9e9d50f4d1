"""The layouts of the papers' data sets, each from a small folder made here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image
from scipy.io import savemat

from ntbench.domains import Raw, find
from ntbench.domains._benchmarks import BENCHMARKS, Benchmark, benchmark
from ntbench.domains._get import get
from ntbench.errors import UserError

PARTS = ("train", "val", "test")
Cli = Callable[..., Any]


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("NTBENCH_DATA", str(tmp_path))
    return tmp_path


def build(name: str) -> Raw:
    return find(name).build(name, 8)


def paint(file: Path, red: int, green: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (red, green, 0)).save(file, quality=100)


def reds(raw: Raw, part: str) -> set[tuple[int, int]]:
    """Return the levels of red with their labels."""
    images, labels = getattr(raw, part)
    return {(int(image[0, 0, 0]), int(label)) for image, label in zip(images, labels, strict=True)}


def folders(name: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return the folders of classes that a domain is read from, under its last name."""
    family = benchmark(name)
    assert family is not None and isinstance(family.classes, tuple)
    return [(f"{family.roots[-1]}/{said.split('|')[-1]}", family.classes) for said in family.domains[name] if said]


OF_FOLDERS = [
    name
    for family in BENCHMARKS
    for name in family.domains
    if family.title in ("PACS", "OfficeHome", "VLCS", "TerraIncognita", "VisDA-2017", "CINIC-10", "ImageNette")
]


@pytest.mark.parametrize("name", OF_FOLDERS)
def test_folders_of_classes_have_the_labels_of_their_family(name: str, root: Path) -> None:
    for index, (folder, classes) in enumerate(folders(name)):
        for label, named in enumerate(classes):
            for copy in range(3):
                paint(root / folder / named / f"{copy}.png", 3 * label + copy, 80 * index)
    (root / folder / classes[0] / "Thumbs.db").write_text("no image")
    raw = build(name)
    sizes = {part: len(getattr(raw, part)[1]) for part in PARTS}
    parts = len(folders(name))
    assert raw.class_names == classes and sum(sizes.values()) == 3 * len(classes) * parts
    for part in PARTS:
        assert all(red // 3 == label for red, label in reds(raw, part))
    if parts > 1:
        greens = {part: set(getattr(raw, part)[0][:, 0, 0, 1].tolist()) for part in PARTS}
        own = {"train": {0}, "val": {80} if parts == 3 else {0}, "test": {80 * (parts - 1)}}
        assert greens == own, "own splits are kept"
    assert raw.remarks == ("files skipped: 1 (1 .db)",)


def test_the_class_lists_are_sorted_and_of_the_published_length() -> None:
    lengths = {family.title: family.classes for family in BENCHMARKS}
    counts = {title: n if isinstance(n, int) else len(n) for title, n in lengths.items()}
    assert list(counts.values()) == [7, 65, 5, 10, 12, 345, 10, 10, 2, 10, 10]
    assert all(list(names) == sorted(names) for names in lengths.values() if isinstance(names, tuple))


def test_a_domain_that_lacks_a_class_keeps_the_labels_of_the_others(root: Path) -> None:
    for named in ("bird", "chair", "person"):
        for copy in range(4):
            paint(root / "VLCS" / "LabelMe" / named / f"{copy}.png", copy)
    raw = build("vlcs_labelme")
    assert raw.classes == 5 and set(np.concatenate([getattr(raw, part)[1] for part in PARTS])) == {0, 2, 4}
    paint(root / "VLCS" / "LabelMe" / "cat" / "1.png", 1)
    with pytest.raises(UserError, match=r"VLCS has the classes \['cat'\], which VLCS lacks; remove them"):
        build("vlcs_labelme")


def test_domainnet_is_read_by_its_lists(root: Path) -> None:
    for part, start, count in (("train", 0, 20), ("test", 100, 4)):
        lines = []
        for index in range(count):
            label, named = ((7, "ant"), (300, "The_Eiffel_Tower"))[index % 2]
            paint(root / "domain_net" / f"sketch/{named}/{start + index}.png", start + index)
            lines.append(f"sketch/{named}/{start + index}.png {label}")
        (root / "domain_net" / f"sketch_{part}.txt").write_text("\n".join(lines))
    raw = build("domainnet_sketch")
    assert raw.classes == 345 and len(raw.val[1]) == 2
    assert reds(raw, "test") == {(100, 7), (101, 300), (102, 7), (103, 300)}
    assert (raw.class_names[7], raw.class_names[300], raw.class_names[8]) == ("ant", "The_Eiffel_Tower", "8")


def test_the_published_mnist_m_is_read_by_its_lists(root: Path) -> None:
    for part, count in (("train", 20), ("test", 10)):
        for index in range(count):
            paint(root / "mnist_m" / f"mnist_m_{part}" / f"{index:08}.png", index)
        lines = "\n".join(f"{index:08}.png {index % 10}" for index in range(count))
        (root / "mnist_m" / f"mnist_m_{part}_labels.txt").write_text(lines)
    raw = build("mnist_m_bsds")
    assert reds(raw, "test") == {(index, index) for index in range(10)} and raw.class_names == tuple("0123456789")


def test_syn_digits_are_read_as_svhn_is(root: Path) -> None:
    for part, count in (("train", 20), ("test", 10)):
        images = np.zeros((32, 32, 3, count), np.uint8) + np.arange(count, dtype=np.uint8)
        labels = np.where(np.arange(count) % 10, np.arange(count) % 10, 10)[:, None]
        (root / "SYN").mkdir(exist_ok=True)
        savemat(root / "SYN" / f"synth_{part}_32x32.mat", {"X": images, "y": labels})
    raw = build("syn_digits")
    assert reds(raw, "test") == {(index, index) for index in range(10)} and raw.train[0].shape == (18, 32, 32, 3)
    (root / "SYN" / "synth_test_32x32.mat").write_bytes(b"no matrix")
    with pytest.raises(UserError, match=r"synth_test_32x32.mat is damaged .*; delete it and get it again"):
        build("syn_digits")


def test_celeba_is_divided_by_an_attribute_and_its_own_partition(root: Path) -> None:
    folder = root / "celeba"
    for index in range(9):
        paint(folder / "img_align_celeba" / f"{index:06}.png", 20 * index)
    signs = [[(-1) ** index, -((-1) ** (index // 3))] for index in range(9)]
    rows = [f"{index:06}.png {' '.join(map(str, row))}" for index, row in enumerate(signs)]
    (folder / "list_attr_celeba.txt").write_text("\n".join(["9", "Male Smiling", *rows]))
    (folder / "list_eval_partition.txt").write_text("\n".join(f"{i:06}.png {i % 3}" for i in range(9)))
    raw = build("celeba_smiling")
    assert raw.class_names == ("no", "yes")
    assert reds(raw, "train") == {(0, 0), (60, 1), (120, 0)} and reds(raw, "test") == {(40, 0), (100, 1), (160, 0)}
    assert reds(build("celeba_male"), "val") == {(20, 0), (80, 1), (140, 0)}


class Hundred:
    """Stands for torchvision's CIFAR-100."""

    def __init__(self, root: Path, train: bool, download: bool) -> None:
        self.data = np.zeros((200, 5, 5, 3), np.uint8)
        self.targets = list(range(100)) * 2


def test_cifar100_has_a_hundred_classes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets, "CIFAR100", Hundred)
    raw = build("cifar100")
    assert raw.classes == 100 and raw.test[1].tolist() == list(range(100)) * 2


@pytest.mark.parametrize("name", sorted(name for family in BENCHMARKS for name in family.domains))
def test_absent_files_are_told_with_the_command_that_helps(name: str, root: Path) -> None:
    with pytest.raises(
        UserError, match=rf"'{name}': nothing there, and `ntbench data get {name}` .*{root}.*NTBENCH_DATA"
    ):
        build(name)


@pytest.mark.parametrize("family", [family for family in BENCHMARKS if not family.get], ids=lambda f: f.title)
def test_what_no_licence_lets_us_download_is_told_with_its_home(family: Benchmark, root: Path) -> None:
    name = next(iter(family.domains))
    with pytest.raises(UserError) as told:
        get(name)
    assert family.home in str(told.value) and family.terms in str(told.value)
    assert str(root / family.roots[0]) in str(told.value)


@pytest.mark.parametrize(
    ("name", "target"),
    [("imagenette", "torchvision.datasets.Imagenette"), ("cinic10", "torchvision.datasets.utils.download_url")],
)
def test_what_may_be_downloaded_comes_with_a_checksum(
    name: str, target: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def offline(*arguments: Any, **named: Any) -> None:
        asked.append((arguments, named))
        raise URLError("no network")

    monkeypatch.setattr(target, offline)
    with pytest.raises(UserError, match=rf"{name}: no download \(.*no network.*\); get it from https://.* into {root}"):
        get(name)
    assert ("6ee4d0c996905fe93221de577967a372" in str(asked)) == (name == "cinic10")


def test_what_is_there_is_not_downloaded(root: Path) -> None:
    (root / "imagenette2-160" / "train").mkdir(parents=True)
    assert get("imagenette") == f"imagenette: its files are in {root / 'imagenette2-160'} (Apache 2.0)"
    assert "comes with the installation" in get("digits_m")
    with pytest.raises(UserError, match="unknown domain 'imagenete'; did you mean 'imagenette'"):
        get("imagenete")


def test_the_command_line_shows_what_is_read(ntbench: Cli, tmp_path: Path) -> None:
    for label in ("ant", "bee"):
        for index in range(10):
            paint(tmp_path / label / f"{index}.png", index, 200 * (label == "bee"))
    (tmp_path / "bee" / "notes.txt").write_text("no image")
    done = ntbench("data", "show", f"folder:{tmp_path}", "--size", 8)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["1", "bee", "7", "1", "2"] in lines and ["all", "14", "2", "4"] in lines
    assert "files skipped: 1 (1 .txt)" in done.stdout
    done = ntbench("data", "get", "vlcs_labelme")
    assert done.returncode == 2 and "Traceback" not in done.stderr and "is not downloaded for you" in done.stderr
