"""Images that models make, on the page: which ones are shown, at both widths."""

import base64
import io

import pandas as pd
import pytest
from PIL import Image

from ntbench.report.display import Record
from ntbench.report.drawn import drawn_data, drawn_figure
from ntbench.report.style import NARROW, WIDE

COLUMNS = ["task", "defense", "attack", "samples", "seed", "source", "target"]
ROWS: list[Record] = [
    {"defense": "sophon", "mask": "dense", "attack": "strong", "frechet": 2.5, "control": False, "baseline": False},
    {"defense": "none", "mask": "dense", "attack": "gone", "frechet": None, "control": True, "baseline": False},
    {"defense": "ntp", "mask": "dense", "attack": "strong", "frechet": 1.0, "control": False, "baseline": False},
]


def png(level: int) -> str:
    buffer = io.BytesIO()
    Image.new("L", (8, 4), level).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


def made() -> pd.DataFrame:
    held = [
        ("t", "sophon", "strong", 40, 1, png(1), png(2)),
        ("t", "sophon", "strong", 400, 0, png(3), png(4)),
        ("t", "sophon", "strong", 40, 0, png(3), png(5)),
        ("t", "sophon", "weak", 400, 0, png(3), png(6)),
        ("t", "none", "strong", 400, 0, png(7), png(8)),
        ("u", "ntp", "strong", 400, 0, png(9), png(9)),
    ]
    return pd.DataFrame(held, columns=COLUMNS)


def test_the_first_seed_and_the_strongest_attack_at_most_samples_are_shown() -> None:
    found = drawn_data(ROWS, made(), "t").astype(object)
    found = found.where(found.notna(), None)
    assert found.to_dict("records") == [
        dict(defense="none", seed=0, frechet=None, source=png(7), attack=None, samples=None, target=None),
        dict(defense="sophon", seed=0, frechet=2.5, source=png(3), attack="strong", samples=400, target=png(4)),
    ]


@pytest.mark.parametrize(("width", "across"), [(WIDE, 2), (NARROW, 1)])
def test_two_panels_a_row_stand_beside_each_other_where_there_is_room(width: float, across: int) -> None:
    figure = drawn_figure(ROWS, made(), "t", width)
    assert figure is not None and len(figure.axes) == 4
    places = [axes.get_subplotspec() for axes in figure.axes]
    assert {place.colspan.start for place in places if place} == set(range(across))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "none, source: no distance",
        "",
        "sophon, source: Frechet distance 2.5",
        "target, after strong, 400 samples",
    ]


def test_nothing_is_drawn_where_models_make_nothing() -> None:
    assert drawn_figure(ROWS, made().iloc[:0], "t") is None
