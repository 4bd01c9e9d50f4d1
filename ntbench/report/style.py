"""How every figure looks: sizes, colours that colour-blind people tell apart, and files in three formats."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ntbench.report.display import Record, short, text

WIDE, NARROW = 7.0, 3.5  # inches: two columns of a paper, and one, which a phone shows
DPI = 200
CANVASES: dict[str, tuple[Any, dict[str, None]]] = {
    "pdf": (FigureCanvasPdf, {"CreationDate": None}),
    "png": (FigureCanvasAgg, {}),
    "svg": (FigureCanvasSVG, {"Date": None}),
}
FORMATS = tuple(CANVASES)
INK, SOFT, GRID = "0.1", "0.45", "0.9"
HOLDS, LEAKS, OPEN = "#0072b2", "#d55e00", "#aa4499"
VERDICTS: Mapping[str, tuple[str, str]] = {
    "holds": (HOLDS, "o"),
    "leaks": (LEAKS, "s"),
    "open": (OPEN, "D"),
    "none": (SOFT, "x"),
    "-": (SOFT, "|"),
}
"""The colour and the marker of a verdict."""
GAIN, LOSS = LEAKS, HOLDS
_RC: dict[str, Any] = {
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.4,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "text.parse_math": False,  # names are no formulas
    "pdf.fonttype": 42,  # conferences refuse the default, Type 3 fonts
    "svg.hashsalt": "ntbench",  # the same file twice
}


class Drawn(Figure):
    """A figure that a notebook shows by itself; pyplot knows nothing of it."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        # Twice as many pixels as it takes room, for screens that have them.
        width, height = (round(96 * inches) for inches in self.get_size_inches())
        return _bytes(self, "png"), {"width": width, "height": height}


def canvas(width: float, height: float, axes: Axes | None = None) -> tuple[Figure, Axes]:
    """Return axes to draw on and their figure: those that are given, or new ones of a size in inches."""
    if axes is None:
        figure = Drawn(figsize=(width, height), layout="constrained")
        return figure, figure.add_subplot()
    owner = axes.figure
    while not isinstance(owner, Figure):
        owner = owner.figure
    return owner, axes


@contextmanager
def styled() -> Iterator[None]:
    """Draw in this style, and leave no trace of it; characters that the font lacks are boxes, not warnings."""
    style: Any = {**sns.axes_style("ticks"), **_RC}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")
        yield


def rendered(figure: Figure, formats: tuple[str, ...] = FORMATS) -> dict[str, bytes]:
    """Return a figure as the bytes of a file of each format."""
    # The layout is the same in every format, and costs more than drawing.
    figure.set_dpi(DPI)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return {kind: _bytes(figure, kind) for kind in formats}


def marker(row: Record) -> tuple[str, str]:
    """Return the colour and the marker of a row's verdict."""
    return VERDICTS.get(text(row, "verdict"), VERDICTS["-"])


def label(row: Record, length: int = 32) -> str:
    """Return a row's name for a figure."""
    kept = " (kept)" if row.get("mask") == "keep" else ""
    return short(text(row, "defense"), length - len(kept)) + kept


def bare(axes: Axes, grid: str = "y") -> None:
    """Take away what carries no number, and put faint lines behind the rest."""
    sns.despine(ax=axes)
    axes.grid(True, axis="y" if grid == "y" else "x", color=GRID)
    axes.set_axisbelow(True)


def _bytes(figure: Figure, kind: str) -> bytes:
    # Straight to the canvas: `savefig` would draw everything twice. No dates, so that a file is the same twice.
    buffer = io.BytesIO()
    figure.set_dpi(DPI)
    canvas, options = CANVASES[kind]
    getattr(canvas(figure), f"print_{kind}")(buffer, metadata=options)
    return buffer.getvalue()
