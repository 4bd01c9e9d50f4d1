"""Synthetic digits and letters drawn with the fonts that come with matplotlib; nothing is downloaded."""

from __future__ import annotations

from math import cos, radians, sin
from typing import TYPE_CHECKING

import numpy as np

from ntbench.domains import Family, Images, Labelled, Raw

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

_SEED = 2022
_SIZES = {"syn": (1200, 400, 1200), "letters": (2600, 520, 520)}
_TEXTS = {"syn": "0123456789", "letters": "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_SIZE = 32
_CANVAS = 96
# Latin text faces with lining figures: no symbol fonts, no size variants, and not cmmi10, whose figures are old-style.
_FACES = [
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("cmr10", "cmb10", "cmss10", "cmtt10"),
]


def _build(name: str, image_size: int) -> Raw:
    # RandomState, not default_rng: NumPy promises that its stream never changes between versions (NEP 19).
    random = np.random.RandomState(_SEED)
    fonts = _fonts()
    train, val, test = (_draw(name, count, fonts, random) for count in _SIZES[name])
    return Raw(classes=len(_TEXTS[name]), train=train, val=val, test=test)


def _fonts() -> list[FreeTypeFont]:
    from matplotlib import get_data_path
    from PIL import ImageFont

    # The basic layout engine is in every Pillow; the default one depends on what the machine has.
    layout = ImageFont.Layout.BASIC
    folder = f"{get_data_path()}/fonts/ttf"
    return [ImageFont.truetype(f"{folder}/{face}.ttf", 72, layout_engine=layout) for face in _FACES]


def _draw(name: str, count: int, fonts: list[FreeTypeFont], random: np.random.RandomState) -> Labelled:
    texts, paint = _TEXTS[name], _colour if name == "syn" else _black_on_white
    labels = random.permutation(np.arange(count, dtype=np.int64) % len(texts))
    images = [paint(_shape(texts[label], fonts[random.randint(len(fonts))], random), random) for label in labels]
    return np.stack(images), labels


def _shape(text: str, font: FreeTypeFont, random: np.random.RandomState) -> Image:
    """Return one character under a random affine map and blur, as a mask of 32x32 pixels."""
    from PIL import Image, ImageDraw, ImageFilter

    canvas = Image.new("L", (_CANVAS, _CANVAS))
    centre = _CANVAS / 2
    left, top, right, bottom = font.getbbox(text)
    corner = (centre - (left + right) / 2, centre - (top + bottom) / 2)
    ImageDraw.Draw(canvas).text(corner, text, fill=255, font=font)
    angle, shear = radians(random.uniform(-15, 15)), random.uniform(-0.15, 0.15)
    zoom_x, zoom_y = random.uniform(1.1, 1.5), random.uniform(1.2, 1.5)
    shift_x, shift_y = random.uniform(-6, 6, size=2)
    a, b = cos(angle) / zoom_x, (shear - sin(angle)) / zoom_x
    d, e = sin(angle) / zoom_y, cos(angle) / zoom_y
    c = centre - a * (centre + shift_x) - b * (centre + shift_y)
    f = centre - d * (centre + shift_x) - e * (centre + shift_y)
    moved = canvas.transform(canvas.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)
    small = moved.resize((_SIZE, _SIZE), Image.Resampling.BOX)
    return small.filter(ImageFilter.GaussianBlur(random.uniform(0, 1.0)))


def _colour(mask: Image, random: np.random.RandomState) -> Images:
    """Return a mask in two random colours whose mean levels lie at least 96 of 255 apart."""
    paper, ink = random.randint(256, size=(2, 3))
    while abs(paper.mean() - ink.mean()) < 96:
        paper, ink = random.randint(256, size=(2, 3))
    cover = np.asarray(mask, dtype=np.int64)[..., None]
    mixed: Images = ((paper * (255 - cover) + ink * cover + 127) // 255).astype(np.uint8)
    return mixed


def _black_on_white(mask: Image, random: np.random.RandomState) -> Images:
    return 255 - np.asarray(mask)


FAMILY = Family(
    version=2,
    domains={
        "syn": "2,800 digits drawn with matplotlib's fonts, random affine maps, blur and colours (embedded)",
        "letters": "3,640 capital letters drawn alike, black on white (embedded)",
    },
    build=_build,
)
