"""The layouts of data sets as their authors or DomainBed lay them out: one table, the classes shared by a family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Benchmark:
    """One family of domains below NTBENCH_DATA, in the first of its `roots` that is there.

    `domains` holds what is read for train, val and test: a folder of classes, a list `FILE.txt@FOLDER` of paths in that
    folder with numbers of classes, a `.mat` file as SVHN's, or an attribute of CelebA. `classes` are in the order of
    their labels; a number stands for classes that lists number. `get`, where the licence allows it, downloads into
    NTBENCH_DATA.
    """

    title: str
    home: str
    terms: str
    roots: tuple[str, ...]
    domains: Mapping[str, tuple[str, str, str]]
    classes: tuple[str, ...] | int
    get: Callable[[Path], object] | None = None


def _whole(prefix: str, **folders: str) -> dict[str, tuple[str, str, str]]:
    """Return domains that nobody divided, each in one folder."""
    return {f"{prefix}_{name}": (folder, "", "") for name, folder in folders.items()}


def _imagenette(root: Path) -> object:
    from torchvision.datasets import Imagenette

    return Imagenette(root, size="160px", download=True)


def _cinic10(root: Path) -> object:
    from torchvision.datasets.utils import download_and_extract_archive

    url = "https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz"
    return download_and_extract_archive(
        url, str(root), str(root / "CINIC-10"), md5="6ee4d0c996905fe93221de577967a372", remove_finished=True
    )


_TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_DIGITS = tuple("0123456789")
_OFFICE = """
Alarm_Clock Backpack Batteries Bed Bike Bottle Bucket Calculator Calendar Candles Chair Clipboards Computer Couch
Curtains Desk_Lamp Drill Eraser Exit_Sign Fan File_Cabinet Flipflops Flowers Folder Fork Glasses Hammer Helmet Kettle
Keyboard Knives Lamp_Shade Laptop Marker Monitor Mop Mouse Mug Notebook Oven Pan Paper_Clip Pen Pencil Postit_Notes
Printer Push_Pin Radio Refrigerator Ruler Scissors Screwdriver Shelf Sink Sneakers Soda Speaker Spoon TV Table Telephone
ToothBrush Toys Trash_Can Webcam
"""
_WNIDS = """
n01440764 n02102040 n02979186 n03000684 n03028079 n03394916 n03417042 n03425413 n03445777 n03888257
"""
_VISDA = "aeroplane bicycle bus car horse knife motorcycle person plant skateboard train truck"
_RESEARCH = "for research that is not commercial"
_NO_LICENCE = "images of others without a stated licence"

BENCHMARKS = (
    Benchmark(
        "PACS",
        "https://github.com/KaiyangZhou/Dassl.pytorch/blob/master/DATASETS.md",
        _NO_LICENCE,
        ("PACS", "PACS/kfold", "pacs"),
        _whole("pacs", photo="photo", art_painting="art_painting", cartoon="cartoon", sketch="sketch"),
        ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person"),
    ),
    Benchmark(
        "OfficeHome",
        "https://www.hemanthdv.org/officeHomeDataset.html",
        _RESEARCH,
        ("OfficeHome", "OfficeHomeDataset_10072016", "office_home"),
        _whole("office_home", art="Art", clipart="Clipart", product="Product", real="Real World|Real"),
        tuple(_OFFICE.split()),
    ),
    Benchmark(
        "VLCS",
        "https://github.com/facebookresearch/DomainBed",
        _NO_LICENCE,
        ("VLCS",),
        _whole("vlcs", caltech101="Caltech101", labelme="LabelMe", sun09="SUN09", voc2007="VOC2007"),
        ("bird", "car", "chair", "dog", "person"),
    ),
    Benchmark(
        "TerraIncognita",
        "https://github.com/facebookresearch/DomainBed",
        "images of Caltech Camera Traps, which DomainBed lays out from annotations of its own",
        ("terra_incognita",),
        _whole("terra", **{f"l{place}": f"location_{place}" for place in (38, 43, 46, 100)}),
        ("bird", "bobcat", "cat", "coyote", "dog", "empty", "opossum", "rabbit", "raccoon", "squirrel"),
    ),
    Benchmark(
        "VisDA-2017",
        "https://ai.bu.edu/visda-2017",
        _RESEARCH,
        ("visda", "VisDA-2017", "visda2017"),
        _whole("visda", synthetic="train", real="validation"),
        tuple(_VISDA.split()),
    ),
    Benchmark(
        "DomainNet",
        "https://ai.bu.edu/M3SDA",
        "fair use for research alone",
        ("domain_net", "DomainNet"),
        {
            f"domainnet_{name}": (f"{name}_train.txt@", "", f"{name}_test.txt@")
            for name in ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
        },
        345,
    ),
    Benchmark(
        "CINIC-10",
        "https://datashare.ed.ac.uk/handle/10283/3192",
        "CC BY 4.0",
        ("CINIC-10", "cinic-10", "CINIC10"),
        {"cinic10": ("train", "valid", "test")},
        _TEN,
        _cinic10,
    ),
    Benchmark(
        "ImageNette",
        "https://github.com/fastai/imagenette",
        "Apache 2.0",
        ("imagenette2-160", "imagenette2-320", "imagenette2"),
        {"imagenette": ("train", "", "val")},
        tuple(_WNIDS.split()),
        _imagenette,
    ),
    Benchmark(
        "CelebA",
        "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        _RESEARCH,
        ("celeba", "CelebA"),
        {f"celeba_{name.lower()}": (name, name, name) for name in ("Male", "Smiling", "Young")},
        ("no", "yes"),
    ),
    Benchmark(
        "MNIST-M as published",
        "https://github.com/pumpikano/tf-dann",
        "made of photographs of BSDS500, " + _RESEARCH,
        ("mnist_m", "MNIST-M"),
        {"mnist_m_bsds": ("mnist_m_train_labels.txt@mnist_m_train", "", "mnist_m_test_labels.txt@mnist_m_test")},
        10,
    ),
    Benchmark(
        "SYN digits",
        "http://yaroslav.ganin.net",
        "without a stated licence",
        ("SYN", "SynthDigits", "syn"),
        {"syn_digits": ("synth_train_32x32.mat", "", "synth_test_32x32.mat")},
        _DIGITS,
    ),
)


def benchmark(name: str) -> Benchmark | None:
    """Return the family that a domain belongs to, or None where it stands in no table."""
    return next((family for family in BENCHMARKS if name in family.domains), None)
