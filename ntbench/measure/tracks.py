"""Who faces what: the rows of a track, the attacks on each, and the baseline's runs beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import numpy as np
from numpy.typing import NDArray

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


class Runs(tuple[Run, ...]):
    """Runs in list order; where they stand, and their hash, are worked out once however often they are chosen among."""

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Runs:
        """Return runs as such, themselves where they are."""
        return runs if isinstance(runs, Runs) else cls(runs)

    @cached_property
    def at(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the releases and the attacks, which together index arrays [release, attack, ...]."""
        releases, attacks = np.array(self, dtype=np.intp).reshape(-1, 2).T
        return releases, attacks

    @cached_property
    def _hash(self) -> int:
        return super().__hash__()

    def __hash__(self) -> int:
        """Return the hash of the tuple."""
        return self._hash


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

    @cached_property
    def all(self) -> Runs:
        """Return every run once, those on the release first."""
        return Runs(dict.fromkeys((*self.release, *self.baseline)))

    @property
    def released(self) -> NDArray[np.bool_]:
        """Return which of all runs are on the release, and behind them that none is not."""
        return np.arange(len(self.all) + 1) < len(set(self.release))


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
    faced = curves.faced[row.release] & np.isin(curves.tracks, granted_to(curves, row.release, track))
    return [int(a) for a in np.flatnonzero(faced if row.mask == "dense" else faced & (curves.masks == row.mask))]


def granted_to(curves: Curves, release: int, track: Track) -> tuple[Track, ...]:
    """Return the tracks of the attacks that count on a release, which differ for a baseline without a black box."""
    return (WITHOUT_RELEASE if curves.releases[release].baseline else GRANTED)[track]


def matching(curves: Curves, release: int, attacks: Iterable[int]) -> list[Run]:
    """Return another release's runs under the same attacks; where it has no mask to keep, under their dense twins."""
    same, faced = np.array([*attacks], dtype=np.intp), curves.faced[release]
    same = np.where(faced[same], same, curves.twins[same])
    return [(release, a) for a in dict.fromkeys(same[(same >= 0) & faced[same]].tolist())]


def pool(curves: Curves, row: Row, track: Track) -> Pool:
    """Return what an attacker of a row chooses from; the baseline faces the same attacks as the row."""
    faced = facing(curves, row, track)
    return Pool(Runs((row.release, a) for a in faced), baseline_runs(curves, faced, track))


def twin_pool(curves: Curves, release: int, row: Row, track: Track) -> Pool:
    """Return the pool of another release under the attacks that a row faces."""
    faced = facing(curves, row, track)
    return Pool(Runs(matching(curves, release, faced)), baseline_runs(curves, faced, track))


def baseline_runs(curves: Curves, faced: Sequence[int], track: Track) -> Runs:
    """Return the runs of all baselines under the same attacks, or on the same data where the release is a black box."""
    if track != "queries":
        return Runs(run for b in curves.baselines for run in matching(curves, b, faced))
    return Runs((b, a) for b in curves.baselines for a in facing(curves, Row(b), track))
