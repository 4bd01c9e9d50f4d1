"""Who faces what: the rows of a track, the attacks on each, and the baseline's runs beside them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from ntbench.measure.curves import Curves
from ntbench.types import Mask, Track

GRANTED: dict[Track, tuple[Track, ...]] = {
    "target": ("target",),
    "source": ("target", "source"),
    "semi-supervised": ("target", "semi-supervised"),
    "unlabelled": ("unlabelled",),
    "queries": ("queries",),
}
"""The attacks of a track are all whose access fits into it."""
WITHOUT_RELEASE: dict[Track, tuple[Track, ...]] = GRANTED | {"queries": ("target", "source")}
"""The attacks that a baseline faces: without a black box to ask, the same data are trained on."""
Run = tuple[int, int]
"""A release and the attack that it faces."""


@dataclass(frozen=True)
class Row:
    """A release as one kind of attacker sees it; `keep` are those alone who keep the zeros of its mask."""

    release: int
    mask: Mask = "dense"


@dataclass(frozen=True)
class Pool:
    """What a rational attacker chooses from, in list order: the runs on a release, then the baseline's own."""

    release: tuple[Run, ...]
    baseline: tuple[Run, ...]

    @property
    def all(self) -> tuple[Run, ...]:
        """Return every run once, those on the release first."""
        return tuple(dict.fromkeys((*self.release, *self.baseline)))


def tracks_of(curves: Curves) -> list[Track]:
    """Return the tracks of which any attack ran on a release."""
    ran = {attack.track for a, attack in enumerate(curves.attacks) if curves.faced[:, a].any()}
    return [track for track in get_args(Track) if track in ran]


def rows_of(curves: Curves, track: Track) -> list[Row]:
    """Return the rows of a track: each release, and each whose zeros an attack kept once more under these alone."""
    rows: list[Row] = []
    for i, release in enumerate(curves.releases):
        masks: tuple[Mask, ...] = ("dense",) if release.baseline else ("dense", "keep")
        rows += [Row(i, mask) for mask in masks if facing(curves, Row(i, mask), track)]
    return rows


def facing(curves: Curves, row: Row, track: Track) -> list[int]:
    """Return the attacks that a row faces, dense and kept together unless it is a row of a kept mask."""
    granted = granted_to(curves, row.release, track)
    return [
        a
        for a, attack in enumerate(curves.attacks)
        if attack.track in granted and curves.faced[row.release, a] and row.mask in ("dense", attack.mask)
    ]


def granted_to(curves: Curves, release: int, track: Track) -> tuple[Track, ...]:
    """Return the tracks of the attacks that count on a release, which differ for a baseline without a black box."""
    return (WITHOUT_RELEASE if curves.releases[release].baseline else GRANTED)[track]


def matching(curves: Curves, release: int, attacks: Iterable[int]) -> list[Run]:
    """Return another release's runs under the same attacks; where it has no mask to keep, under their dense twins."""
    found: list[Run] = []
    for a in attacks:
        twin = curves.find(curves.attacks[a].label, "dense")
        same = next((b for b in (a, twin) if b is not None and curves.faced[release, b]), None)
        found += [] if same is None else [(release, same)]
    return list(dict.fromkeys(found))


def pool(curves: Curves, row: Row, track: Track) -> Pool:
    """Return what an attacker of a row chooses from; the baseline faces the same attacks as the row."""
    faced = facing(curves, row, track)
    return Pool(tuple((row.release, a) for a in faced), tuple(baseline_runs(curves, faced, track)))


def twin_pool(curves: Curves, release: int, row: Row, track: Track) -> Pool:
    """Return the pool of another release under the attacks that a row faces."""
    faced = facing(curves, row, track)
    return Pool(tuple(matching(curves, release, faced)), tuple(baseline_runs(curves, faced, track)))


def baseline_runs(curves: Curves, faced: Iterable[int], track: Track) -> list[Run]:
    """Return the runs of all baselines under the same attacks, or on the same data where the release is a black box."""
    attacks = list(faced)
    if track != "queries":
        return [run for b in curves.baselines for run in matching(curves, b, attacks)]
    return [(b, a) for b in curves.baselines for a in facing(curves, Row(b), track)]
