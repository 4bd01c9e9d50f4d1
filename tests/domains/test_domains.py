from __future__ import annotations

import bz2
import os
import struct
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from sklearn.neighbors import KNeighborsClassifier

from ntbench.domains import Raw, find
from ntbench.domains._listing import listing
from ntbench.domains._partition import split_official, split_three, stratified_order
from ntbench.errors import UserError

PARTS = ("train", "val", "test")


def build(name: str, image_size: int = 16) -> Raw:
    return find(name).build(name, image_size)


def real(monkeypatch: pytest.MonkeyPatch, *needed: str) -> Path:
    shared = Path(__file__).parents[2] / "../shared/data"
    root = Path(os.environ.get("NTBENCH_DATA") or shared)
    for path in needed:
        if not (root / path).exists():
            pytest.skip(f"no {path} in {root}; name the folder of the real data in NTBENCH_DATA")
    monkeypatch.setenv("NTBENCH_DATA", str(root))
    return root


def rows(images: Any) -> set[bytes]:
    return {image.tobytes() for image in images}


def pool(classes: int = 4, count: int = 400) -> tuple[Any, Any]:
    labels = np.random.RandomState(0).randint(classes, size=count)
    return np.arange(count, dtype=np.int64), labels


def test_every_prefix_of_the_stratified_order_keeps_the_proportions() -> None:
    _, labels = pool()
    random = np.random.RandomState(1)
    order = stratified_order(labels, random.random_sample(400), random.random_sample(4))
    assert sorted(order) == list(range(400))
    share = np.bincount(labels) / 400
    for count in range(1, 401):
        assert np.abs(np.bincount(labels[order[:count]], minlength=4) - share * count).max() <= 2


def test_a_pool_falls_in_three_stratified_parts_by_seed_alone() -> None:
    images, labels = pool()
    np.random.seed(0)
    raw = split_three(images, labels, classes=4, val=40, test=80, seed=3)
    np.random.seed(1)
    again = split_three(images, labels, classes=4, val=40, test=80, seed=3)
    other = split_three(images, labels, classes=4, val=40, test=80, seed=4)
    assert [len(getattr(raw, part)[1]) for part in PARTS] == [280, 40, 80]
    assert sorted(np.concatenate([getattr(raw, part)[0] for part in PARTS])) == list(range(400))
    for part in PARTS:
        found, same = getattr(raw, part), getattr(again, part)
        assert (found[0] == same[0]).all() and (found[1] == labels[found[0]]).all()
        assert np.abs(np.bincount(found[1]) - np.bincount(labels) * len(found[1]) / 400).max() <= 2
    assert (raw.test[0] != other.test[0]).any()


def test_an_official_test_set_stays_and_a_tenth_of_the_training_set_validates() -> None:
    train, test = pool(), pool(count=30)
    raw = split_official(train, test, classes=4, seed=3)
    assert raw.test is test
    assert len(raw.val[1]) == 40
    assert sorted(np.concatenate([raw.train[0], raw.val[0]])) == list(range(400))


def test_digits_are_all_of_scikit_learns_once() -> None:
    raw, bunch = build("digits"), load_digits()
    images = np.concatenate([getattr(raw, part)[0] for part in PARTS])
    labels = np.concatenate([getattr(raw, part)[1] for part in PARTS])
    assert [len(getattr(raw, part)[1]) for part in PARTS] == [1200, 197, 400]
    assert len(rows(images)) == 1797
    assert np.bincount(labels).tolist() == np.bincount(bunch.target).tolist()


def test_digits_are_upsampled_as_pillow_does_it() -> None:
    grey = np.concatenate([getattr(build("digits"), part)[0] for part in PARTS])
    ours = rows(grey)
    for image in load_digits().images[:20]:
        large = Image.fromarray(image.astype(np.float32)).resize((16, 16), Image.Resampling.BILINEAR)
        assert np.rint(np.asarray(large, dtype=np.float64) * 255 / 16).astype(np.uint8).tobytes() in ours


def test_the_nearest_neighbour_reads_the_digits() -> None:
    raw = build("digits")
    flat = {part: getattr(raw, part)[0].reshape(-1, 256) / 255 for part in PARTS}
    model = KNeighborsClassifier(1).fit(flat["train"], raw.train[1])
    assert model.score(flat["test"], raw.test[1]) > 0.9
    assert model.score(flat["val"], raw.val[1]) > 0.9


def is_blend(image: Any, digit: Any) -> bool:
    """Say whether some patch of the sample photos gives |patch - digit| = image."""
    height, width = digit.shape
    digit, image = digit.astype(int), image.astype(int)
    for photo in load_sample_images().images:
        places = np.indices((photo.shape[0] - height + 1, photo.shape[1] - width + 1)).reshape(2, -1)
        for row, column in np.ndindex(height, width):
            pixels = photo[places[0] + row, places[1] + column].astype(int)
            places = places[:, (np.abs(pixels - digit[row, column]) == image[row, column]).all(axis=1)]
        if places.size:
            return True
    return False


@pytest.mark.parametrize("part", PARTS)
def test_digits_m_are_the_same_digits_in_the_same_partition_on_photo_patches(part: str) -> None:
    (digits, labels), (blends, blend_labels) = getattr(build("digits"), part), getattr(build("digits_m"), part)
    views = build("digits_m").views if part == "test" else 1
    assert (np.tile(labels, views) == blend_labels).all()
    assert blends.shape == (views * len(digits), *digits.shape[1:], 3)
    assert is_blend(blends[-len(digits)], digits[0])
    assert not is_blend(blends[0], digits[1])


def test_test_digits_stand_on_other_patches_in_every_view() -> None:
    blends = build("digits_m").test[0]
    assert build("digits_m").views == 3 and build("digits").views == 1
    first, second, third = (blends[k * 400 : (k + 1) * 400].reshape(400, -1) for k in range(3))
    assert all((a != b).any(axis=1).all() for a, b in ((first, second), (first, third), (second, third)))


def test_syn_is_balanced_coloured_and_never_repeats() -> None:
    raw = build("syn")
    images = np.concatenate([getattr(raw, part)[0] for part in PARTS])
    assert images.shape == (2800, 32, 32, 3) and images.dtype == np.uint8
    assert len(rows(images)) == 2800
    for part, count in zip(PARTS, (120, 40, 120), strict=True):
        assert np.bincount(getattr(raw, part)[1]).tolist() == [count] * 10
    spread = images.reshape(2800, -1, 3).mean(axis=2)
    assert (spread.max(axis=1) - spread.min(axis=1) > 60).mean() > 0.99


def test_letters_are_balanced_black_on_white_and_never_repeat() -> None:
    raw = build("letters")
    images = np.concatenate([getattr(raw, part)[0] for part in PARTS])
    assert raw.classes == 26 and images.shape == (3640, 32, 32) and len(rows(images)) == 3640
    for part, count in zip(PARTS, (100, 20, 20), strict=True):
        assert np.bincount(getattr(raw, part)[1]).tolist() == [count] * 26
    corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners > 200).mean() > 0.95 and (images.reshape(3640, -1).min(axis=1) < 100).mean() > 0.99


CIFAR = ["airplane", "car", "bird", "cat", "deer", "dog", "monkey for frog", "horse", "ship", "truck"]
STL = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey for frog", "ship", "truck"]


class Fake:
    """Stands for a torchvision set of 20 images of one level, with a redder first channel; CIFAR's end in channels."""

    def __init__(self, root: Path, train: bool = True, split: str = "", download: bool = False) -> None:
        part = split or ("train" if train else "test")
        self.labels = self.targets = np.arange(20, dtype=np.uint8) % 10
        self.data = np.full((20, 3, 5, 5), 7 if part == "train" else 9, np.uint8)
        self.data[:, 0] += 1
        if not split:
            self.data = self.data.transpose(0, 2, 3, 1)


@pytest.mark.parametrize(("name", "attribute"), [("svhn", "SVHN"), ("stl10", "STL10"), ("cifar10", "CIFAR10")])
def test_the_object_sets_of_torchvision(
    name: str, attribute: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NTBENCH_DATA", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets, attribute, Fake)
    raw = build(name)
    assert raw.train[0].shape == (18, 5, 5, 3) and raw.val[0].shape == (2, 5, 5, 3) and raw.test[0].shape[0] == 20
    assert (raw.train[0][..., 0] == 8).all() and (raw.train[0][..., 1:] == 7).all() and raw.test[0].max() == 10
    expected = [CIFAR.index(label) for label in STL] if name == "stl10" else list(range(10))
    assert raw.test[1].tolist() == expected * 2 and raw.test[1].dtype == np.int64


@pytest.mark.parametrize(
    ("name", "attribute"), [("mnist", "MNIST"), ("usps", "USPS"), ("svhn", "SVHN"), ("cifar10", "CIFAR10")]
)
def test_absent_files_are_downloaded_or_named(
    name: str, attribute: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[bool] = []

    def offline(*_: object, download: bool, **__: object) -> None:
        asked.append(download)
        raise URLError("no network")

    monkeypatch.setenv("NTBENCH_DATA", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets, attribute, offline)
    with pytest.raises(UserError, match=f"domain '{name}'.*no network.*{tmp_path}.*NTBENCH_DATA"):
        build(name)
    assert asked == [True]
    assert not list(tmp_path.iterdir())


def write_idx(file: Path, values: Any) -> None:
    file.write_bytes(struct.pack(f">I{values.ndim}I", 0x0800 + values.ndim, *values.shape) + values.tobytes())


def test_mnist_files_that_are_not_mnist_are_refused_without_a_download(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NTBENCH_DATA", str(tmp_path))
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        write_idx(raw / f"{part}-images-idx3-ubyte", np.zeros((20, 28, 28), np.uint8))
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(20, dtype=np.uint8) % 10)
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte has SHA-256 .* not ba891046.*; delete it"):
        build("mnist")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            bz2.compress(b"1 " + b" ".join(b"%d:-1" % index for index in range(1, 257)) + b"\n"),
            r"has \[1, 0, .* not \[1194",
        ),
        (b"this is not bzip2", "damaged"),
        (bz2.compress(b"1 1:-1\n")[:-4], "damaged"),
    ],
    ids=["other images", "garbage", "truncated"],
)
def test_usps_files_that_are_not_usps_are_refused(
    content: bytes, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NTBENCH_DATA", str(tmp_path))
    (tmp_path / "USPS").mkdir()
    (tmp_path / "USPS" / "usps.bz2").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        build("usps")


def paint(root: Path, label: str, count: int, suffix: str = "png") -> None:
    (root / label).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.new("RGB", (10 + index, 20), (index, 0, 200)).save(root / label / f"{index}.{suffix}")


def test_a_folder_of_images_is_a_domain(tmp_path: Path) -> None:
    paint(tmp_path, "zebra", 40)
    paint(tmp_path, "ant", 30, "JPG")
    paint(tmp_path, ".hidden", 5)
    (tmp_path / "ant" / "notes.txt").write_text("not an image")
    raw = build(f"folder:{tmp_path}", 12)
    assert raw.classes == 2
    assert [len(getattr(raw, part)[1]) for part in PARTS] == [49, 7, 14]
    assert np.bincount(np.concatenate([getattr(raw, part)[1] for part in PARTS])).tolist() == [30, 40]
    assert raw.test[0].shape == (14, 12, 12, 3) and np.bincount(raw.test[1]).tolist() == [6, 8]
    levels = [image[0, 0, 0] for part in PARTS for image, y in zip(*getattr(raw, part), strict=True) if y == 1]
    assert sorted(levels) == list(range(40))


def test_a_folder_without_its_images_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder.*nowhere.*NTBENCH_DATA"):
        build(f"folder:{tmp_path / 'nowhere'}")
    paint(tmp_path, "ant", 3)
    with pytest.raises(UserError, match=r"fewer than two class folders \(\['ant'\]\)"):
        build(f"folder:{tmp_path}")
    (tmp_path / "bee").mkdir()
    with pytest.raises(UserError, match=r"no images for the classes \['bee'\]"):
        build(f"folder:{tmp_path}")
    paint(tmp_path, "bee", 3)
    with pytest.raises(UserError, match="only 6 images"):
        build(f"folder:{tmp_path}")
    (tmp_path / "bee" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.png is not a readable image"):
        build(f"folder:{tmp_path}")


def test_pacs_without_its_folder_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NTBENCH_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"pacs_sketch.*PACS/sketch.*NTBENCH_DATA"):
        build("pacs_sketch")


def test_real_mnist_keeps_its_test_set_and_mnist_m_its_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    root = real(monkeypatch, "MNIST/raw/train-images-idx3-ubyte")
    raw = build("mnist")
    assert [getattr(raw, part)[0].shape for part in PARTS] == [(count, 28, 28) for count in (54000, 6000, 10000)]
    official = np.frombuffer((root / "MNIST/raw/t10k-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
    assert raw.test[0].tobytes() == official.tobytes()
    assert not rows(raw.train[0]) & rows(raw.val[0])
    assert np.abs(np.bincount(raw.val[1]) * 9 - np.bincount(raw.train[1])).max() <= 20
    blends = build("mnist_m")
    for part in PARTS:
        (plain, labels), (blend, blend_labels) = getattr(raw, part), getattr(blends, part)
        assert (labels == blend_labels).all() and blend.shape == (*plain.shape, 3)
        assert is_blend(blend[-1], plain[-1])


def test_real_usps_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    real(monkeypatch, "USPS/usps.bz2", "USPS/usps.t.bz2")
    raw = build("usps")
    assert [getattr(raw, part)[0].shape for part in PARTS] == [(count, 16, 16) for count in (6562, 729, 2007)]
    model = KNeighborsClassifier(1).fit(raw.train[0][:2000].reshape(-1, 256) / 255, raw.train[1][:2000])
    assert model.score(raw.test[0].reshape(-1, 256) / 255, raw.test[1]) > 0.85


def test_real_pacs_is_read_whole_with_the_same_classes_in_every_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    root = real(monkeypatch, "PACS/photo", "PACS/sketch")
    raw = build("pacs_photo", 32)
    assert raw.classes == 7
    assert [getattr(raw, part)[0].shape for part in PARTS] == [(count, 32, 32, 3) for count in (1169, 167, 334)]
    assert all(len(set(getattr(raw, part)[1].tolist())) == 7 for part in PARTS)
    assert raw.class_names == listing("pacs_sketch", root / "PACS" / "sketch").classes
