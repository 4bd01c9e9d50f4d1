"""Images of one's own: layouts, lists, framing, and what is said of the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from timm.data import create_transform

from ntbench.domains import Raw, find
from ntbench.errors import UserError
from ntbench.tasks.data import load_domain

PARTS = ("train", "val", "test")


def build(name: str, image_size: int = 8) -> Raw:
    return find(name).build(name, image_size)


def paint(folder: Path, count: int, start: int = 0, suffix: str = "png") -> None:
    """Write images of one colour each, red in rising levels, so that each tells its number."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(start, start + count):
        Image.new("RGB", (10, 10), (index, 0, 0)).save(folder / f"{index:03}.{suffix}")


def reds(part: tuple[Any, Any]) -> dict[int, int]:
    """Return the label of every image by its level of red."""
    return {int(image[0, 0, 0]): int(label) for image, label in zip(*part, strict=True)}


def three_parts(root: Path, val: str = "val") -> None:
    for start, part, count in ((0, "train", 12), (50, val, 3), (70, "test", 4)):
        paint(root / part / "ant", count, start)
        paint(root / part / "bee", count, start + 100)


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_splits_of_ones_own_are_kept_as_they_are(tmp_path: Path, val: str) -> None:
    three_parts(tmp_path, val)
    raw = build(f"folder:{tmp_path}")
    for (start, count), part in zip(((0, 12), (50, 3), (70, 4)), PARTS, strict=True):
        expected = dict.fromkeys(range(start, start + count), 0)
        assert reds(getattr(raw, part)) == expected | dict.fromkeys(range(start + 100, start + count + 100), 1)
    assert raw.class_names == ("ant", "bee") and raw.remarks == ()
    assert list(reds(raw.train)) != sorted(reds(raw.train)), "the place of an image would tell its label"


@pytest.mark.parametrize(("gone", "scored"), [("val", range(70, 74)), ("test", range(50, 53))])
def test_what_is_missing_of_three_splits_is_a_tenth_of_train(tmp_path: Path, gone: str, scored: range) -> None:
    three_parts(tmp_path)
    (tmp_path / gone).rename(tmp_path.parent / f"{tmp_path.name}-{gone}")
    raw = build(f"folder:{tmp_path}")
    assert {red % 100 for red in reds(raw.test)} == set(scored)
    assert len(raw.val[1]) == 2 and len(raw.train[1]) == 22
    assert {red % 100 for red in reds(raw.train) | reds(raw.val)} == set(range(12))
    (remark,) = raw.remarks
    assert "images are a tenth of train" in remark and ("val is scored" in remark) == (gone == "test")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for number, label in enumerate(("bus", "train")):
        paint(tmp_path / label, 10, 100 * number)
    raw = build(f"folder:{tmp_path}")
    assert raw.class_names == ("bus", "train") and len(raw.train[1]) == 14


@pytest.mark.parametrize("suffix", ["webp", "bmp", "tif", "tiff", "JPEG", "png"])
def test_every_kind_of_file_is_read(tmp_path: Path, suffix: str) -> None:
    for number, label in enumerate(("ant", "bee")):
        paint(tmp_path / label / "deeper", 6, 100 * number, suffix)
    raw = build(f"folder:{tmp_path}")
    assert sum(len(getattr(raw, part)[1]) for part in PARTS) == 12
    assert not [remark for remark in raw.remarks if "skipped" in remark]


def test_skipped_files_are_counted_by_kind(tmp_path: Path) -> None:
    three_parts(tmp_path)
    for place in ("notes.txt", "train/ant/clip.gif", "val/bee/clip.gif", "test/bee/._001.png"):
        (tmp_path / place).write_text("no image")
    paint(tmp_path / "spare" / "ant", 2)
    (remark,) = build(f"folder:{tmp_path}").remarks
    assert remark.startswith("files skipped: 6 (")
    assert {"3 .png", "2 .gif", "1 .txt"} == set(remark.partition("(")[2].rstrip(")").split(", "))


def test_images_that_stand_in_two_splits_are_told(tmp_path: Path) -> None:
    three_parts(tmp_path)
    paint(tmp_path / "test" / "ant", 3)
    paint(tmp_path / "test" / "bee", 1, 5)
    paint(tmp_path / "val" / "ant", 1, 70, "bmp")
    assert build(f"folder:{tmp_path}").remarks == (
        "4 of 12 test images are train images too, 1 under another label",
        "1 of 12 test images are val images too, 0 under another label",
    )


def sizes() -> list[tuple[int, int]]:
    return [(40, 30), (31, 57), (64, 64), (20, 20), (7, 90)]


@pytest.mark.parametrize("crop_pct", [1.0, 0.875, 0.95])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_images_are_framed_as_timm_frames_them(tmp_path: Path, crop_pct: float, interpolation: str) -> None:
    random, transform = np.random.RandomState(0), create_transform(32, crop_pct=crop_pct, interpolation=interpolation)
    steps = [step for step in transform.transforms if type(step).__name__ in ("Resize", "CenterCrop")]
    assert len(steps) == 2
    expected = []
    for number, (width, height) in enumerate(sizes() * 2):
        image = Image.fromarray(random.randint(256, size=(height, width, 3)).astype(np.uint8))
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        image.save(folder / f"{number}.png")
        for step in steps:
            image = step(image)
        expected.append(np.asarray(image).tobytes())
    raw = build(f"folder:{tmp_path}?crop_pct={crop_pct}&interpolation={interpolation}", 32)
    found = [image.tobytes() for part in PARTS for image in getattr(raw, part)[0]]
    assert sorted(found) == sorted(expected)


def test_a_squashed_image_shows_its_edges_and_a_cropped_one_its_middle(tmp_path: Path) -> None:
    stripes = np.zeros((10, 30, 3), np.uint8)
    stripes[:, :10, 0] = stripes[:, 20:, 1] = 255
    for label in "ab":
        (tmp_path / label).mkdir()
        for index in range(5):
            Image.fromarray(stripes).save(tmp_path / label / f"{index}.png")
    assert build(f"folder:{tmp_path}", 10).test[0].max() == 0
    squashed = build(f"folder:{tmp_path}?squash", 10).test[0]
    assert (squashed[:, :, 0, 0] == 255).all() and (squashed[:, :, -1, 1] == 255).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("sqash", "unknown option of a folder 'sqash'; did you mean 'squash'"),
        ("squash=yes", "`squash` takes no value"),
        ("crop_pct=1.2", "crop_pct=1.2: give a number above 0 and up to 1"),
        ("crop_pct=wide", "crop_pct=wide: give a number"),
        ("interpolation=bicubik", "unknown interpolation 'bicubik'; did you mean 'bicubic'"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(tmp_path: Path, options: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(f"folder:{tmp_path}?{options}")


def rows(root: Path, form: Callable[[str, str], str], count: int = 10) -> list[str]:
    for number, label in enumerate(("10", "9")):
        paint(root / "images" / label, count, 100 * number)
    return [
        form(f"images/{label}/{100 * n + i:03}.png", label) for n, label in enumerate(("10", "9")) for i in range(10)
    ]


@pytest.mark.parametrize(
    ("file", "head", "form"),
    [
        ("list.csv", "path,label", "{0},{1}"),
        ("list.csv", "", "{0},{1}"),
        ("list.csv", "id,label,path", "7,{1},{0}"),
        ("list.tsv", "path\tlabel", "{0}\t{1}"),
        ("list.txt", "", "{0} {1}"),
    ],
)
def test_a_list_of_paths_and_labels_is_a_domain(tmp_path: Path, file: str, head: str, form: str) -> None:
    lines = rows(tmp_path, form.format)
    (tmp_path / file).write_text("\n".join([head, *lines] if head else lines) + "\n\n")
    raw = build(f"folder:{tmp_path / file}")
    assert raw.class_names == ("9", "10"), "numbers stand in their order"
    whole = reds(raw.train) | reds(raw.val) | reds(raw.test)
    assert whole == dict.fromkeys(range(10), 1) | dict.fromkeys(range(100, 110), 0)


def test_a_list_may_divide_its_images(tmp_path: Path) -> None:
    lines = rows(tmp_path, lambda path, label: f"{path},{label},{'test' if path[-5] in '89' else 'train'}")
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *lines]))
    raw = build(f"folder:{tmp_path / 'list.csv'}")
    assert set(reds(raw.test)) == {8, 9, 108, 109} and len(raw.val[1]) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.png", r"list.csv, line 2: \['a.png'\] is not path,label"),
        ("path,label,split\na.png,x,trian\n", "line 2: unknown split 'trian'; did you mean 'train'"),
        ("a.png,x,train\nb.png,y\n", r"has the splits \['\(empty\)', 'train'\]; give every line one"),
        ("a.png,x,val\nb.png,y,test\n", "give every line one, train and val or test"),
        ("a.png,x\nb.png,y\n", "2 files of .* are absent, .*a.png first; mend its paths"),
        ("", r"fewer than two classes \(\[\]\)"),
    ],
)
def test_a_list_that_cannot_be_read_says_where(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        build(f"folder:{tmp_path / 'list.csv'}")


def test_a_class_that_is_not_trained_on_is_named(tmp_path: Path) -> None:
    three_parts(tmp_path)
    paint(tmp_path / "test" / "wasp", 1)
    with pytest.raises(UserError, match=r"test has the classes \['wasp'\], which train lacks"):
        build(f"folder:{tmp_path}")


def test_files_that_are_no_lists_and_images_of_sixteen_bits_are_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"photo.png is no list; give a folder"):
        build(f"folder:{tmp_path / 'photo.png'}")
    paint(tmp_path / "ant", 10)
    paint(tmp_path / "bee", 9)
    Image.fromarray(np.full((4, 4), 3000, np.uint16)).save(tmp_path / "bee" / "deep.tif")
    with pytest.raises(UserError, match=r"deep.tif is not a readable image \(more than eight bits a channel"):
        build(f"folder:{tmp_path}")


def test_class_names_and_remarks_outlive_the_cache(tmp_path: Path) -> None:
    three_parts(tmp_path / "data")
    (tmp_path / "data" / "notes.txt").write_text("no image")
    for _ in range(2):
        domain = load_domain.__wrapped__(f"folder:{tmp_path / 'data'}", 8, tmp_path / "cache")
        assert domain.class_names == ("ant", "bee") and domain.remarks == ("files skipped: 1 (1 .txt)",)
        assert domain.lines == ["data: 2 classes: 0 ant, 1 bee", "data: files skipped: 1 (1 .txt)"]
    (tmp_path / "data" / "train" / "ant" / "000.png").unlink()
    again = load_domain.__wrapped__(f"folder:{tmp_path / 'data'}", 8, tmp_path / "cache")
    assert len(again.train) == 23
