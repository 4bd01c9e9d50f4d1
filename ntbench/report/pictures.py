"""The figures of a report: what each is called and says, drawn for a page, a phone and a paper, and its data."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from ntbench.report.ablations import ablations_figure
from ntbench.report.agreement import agreement_data, agreement_figure
from ntbench.report.display import Record, text
from ntbench.report.drawn import drawn_data, drawn_figure
from ntbench.report.forest import ranking_data, ranking_figure
from ntbench.report.heat import MAPS, attacks_data, attacks_figure, factors_data, factors_figure, map_data, map_figure
from ntbench.report.panels import (
    compute_data,
    compute_figure,
    learning_curves_data,
    learning_curves_figure,
    permitted_figure,
)
from ntbench.report.sentences import brackets
from ntbench.report.style import NARROW, WIDE, rendered, styled
from ntbench.report.tables import csv

HOLLOW = "Hollow: a control, or an attacker who keeps the released zeros (kept)."
CAPTIONS = {
    "ranking": (
        "What every release leaks",
        "Leak, the least at the top, between the two ends: 0, where the release adds nothing over scratch or another "
        f"start without it, and 1, as much as with no protection. Shaded: what holds. {HOLLOW}",
    ),
    "learning_curves": (
        "Over samples",
        "Target test accuracy of the release alone and of the baseline, means over seeds; bars span the seeds. The "
        "area between them is SLC-AUC. Uplift in each panel is what a rational attacker gains, in points: where the "
        "release is worse it starts anew.",
    ),
    "compute": (
        "Over compute",
        "What a rational attacker gains from the release if a run has this budget, averaged over sample counts, beside "
        "the unprotected release. T90: the steps that the baseline takes to 90% of its plateau.",
    ),
    "permitted": (
        "Over the permitted source drop",
        "Leak of rows of one defense that differ in the source accuracy which they may cost alone, and its interval; "
        "the colour is that of the verdict.",
    ),
    "ablations": (
        "What one hyper-parameter changes",
        "Leak of rows that change one hyper-parameter of the row on top, and its interval; all else is as there. The "
        "colour is that of the verdict.",
    ),
    "drawn": (
        "What models make",
        "Images of 25 steps of DDIM from the same noise, at the first seed: of the source, by the release as it is "
        "handed over, beside its Frechet distance from the source, a mean over seeds; and of the target, after the "
        "strongest attack on the release alone, at the horizon and the largest sample count.",
    ),
    "agreement": (
        "How well two scores agree",
        "The score of the attacker's last model over the Frechet distance of 300 images that it makes from the "
        "target's training images: a point for each attack on a release, means over seeds, a panel for each "
        "sample count, since more samples better both. Near -1 both order models alike; the interval takes points as "
        "independent.",
    ),
    "factors": (
        "Robustness, factor by factor",
        "Leak where one factor of the attack is held and the others are at their best; 0 nothing is left, 1 no "
        "protection. A dash: no such attack faced the row.",
    ),
    "attacks": (
        "Every attack on every row",
        "SLC-AUC of a single attack against the baseline at its best; below 0 worse than starting without the release. "
        "A dash: the attack did not face the row, or lacks a seed or a sample count.",
    ),
    "slc": (
        "SLC-AUC from every source to every target",
        "Of the release alone; below 0 it is worse than starting without it. The number beside each name is the mean.",
    ),
    "leak": (
        "Leak from every source to every target",
        "0: nothing is left, 1: no protection. The number beside each name is the mean over the tasks shown.",
    ),
}

Drawing = tuple[Callable[[float], Figure | None], Callable[[], pd.DataFrame]]
"""What draws a figure of a width in inches, and what gives the data that it draws."""


@dataclass(frozen=True)
class Picture:
    """A figure on the page: PNG as base64, the narrow one for phones, and its files by what their names end in."""

    stem: str
    title: str
    caption: str
    place: str
    wide: str
    narrow: str
    files: Mapping[str, bytes]


def task_pictures(
    rows: Sequence[Record],
    lines: Mapping[str, pd.DataFrame],
    levels: Sequence[Record],
    called: tuple[str, str],
    objective: str,
) -> dict[str, Picture]:
    """Return the figures of one task by name; it is `called` by a name for files and a title for people.

    `lines` are the task's curves, budgets, permitted drops, ablations, attacks and how two scores agree in the ranked
    track, and images that models of any task made; what has nothing to show is left out. The objective's name decides
    the words.
    """
    name, title = called
    made = lines["drawn"]
    drawn: dict[str, Drawing] = {
        "ranking": (lambda width: ranking_figure(rows, width), lambda: ranking_data(rows)),
        "learning_curves": (
            lambda width: learning_curves_figure(rows, lines["curves"], width, objective),
            lambda: learning_curves_data(rows, lines["curves"]),
        ),
        "drawn": (lambda width: drawn_figure(rows, made, name, width), lambda: drawn_data(rows, made, name)),
        "agreement": (
            lambda width: agreement_figure(lines["agreement"], width),
            lambda: agreement_data(lines["agreement"]),
        ),
        "compute": (
            lambda width: compute_figure(rows, lines["budgets"], width),
            lambda: compute_data(rows, lines["budgets"]),
        ),
        "permitted": (lambda width: permitted_figure(lines["permitted"], width), lambda: lines["permitted"]),
        "ablations": (lambda width: ablations_figure(lines["ablations"], width), lambda: lines["ablations"]),
        "factors": (lambda width: factors_figure(rows, levels, width=width), lambda: factors_data(rows, levels)),
        "attacks": (
            lambda width: attacks_figure(rows, lines["attacks"], width=width),
            lambda: attacks_data(rows, lines["attacks"]),
        ),
    }
    return dict(_pictures(drawn, name, title, brackets(rows)))


def map_pictures(table: pd.DataFrame, rows: Sequence[Record], protocol: str) -> dict[str, Picture]:
    """Return the maps of sources and targets by the number that they show."""
    drawn = {name: _map(table, rows, name) for name in MAPS}
    return dict(_pictures(drawn, "map", protocol, ""))


def _map(table: pd.DataFrame, rows: Sequence[Record], name: str) -> Drawing:
    return lambda width: map_figure(table, rows, name, width), lambda: map_data(table, rows, name)


def _pictures(drawn: Mapping[str, Drawing], name: str, title: str, note: str) -> Iterator[tuple[str, Picture]]:
    for kind, (draw, data) in drawn.items():
        with styled():
            wide, narrow = draw(WIDE), draw(NARROW)
            if wide is None or narrow is None:
                continue
            two, one = rendered(wide), rendered(narrow)
        files = {f".{form}": held for form, held in two.items()} | {
            f"-column.{form}": held for form, held in one.items()
        }
        heading, caption = CAPTIONS[kind]
        said = f"{caption} {note.replace('Brackets', 'Lines')}" if kind == "ranking" and note else caption
        shown = _base64(two["png"]), _base64(one["png"])
        yield kind, Picture(f"{kind}-{name}", heading, said, title, *shown, files | {".csv": csv(data())})


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def mapped(board: pd.DataFrame) -> list[Record]:
    """Return one row per defense and mask of the ranked track, for the panels of the maps, by mean leak."""
    part = board[board["track"] == "target"]
    mean = part.groupby(["defense", "mask"], sort=False)
    rows = mean.agg({"leak": "mean", "baseline": "first", "control": "first"}).reset_index().sort_values("leak")
    return [{str(k): v for k, v in row.items()} | {"verdict": text(row, "verdict")} for row in rows.to_dict("records")]  # type: ignore[arg-type]
