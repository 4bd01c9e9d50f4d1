"""Results as arrays: per task, what every run reached and paid, at its place in the grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ntbench.measure.areas import Array
from ntbench.suite import Planned
from ntbench.types import BASELINES, Mask, Protection, Status, Task, Texts, Track, Tuning, unpack_scores

COSTS = ("steps", "samples", "flops", "seconds")
STATES: tuple[Status, ...] = get_args(Status)
ABSENT = -1
AUTO = "auto"
"""The registered name of the search."""
NO_BITS = -1


@dataclass(frozen=True)
class Release:
    """What attackers start from, by its label in tables and its defense's registered name.

    `one_file` says that all seeds attack the same weights, which came as a file; `tuning` how the defense was tuned.
    """

    label: str
    name: str
    one_file: bool = False
    tuning: Tuning | None = None

    @property
    def baseline(self) -> bool:
        """Return whether an attacker starts here without the release."""
        return self.name in BASELINES


@dataclass(frozen=True, eq=False)
class Attacker:
    """One attack of the grid: label and mask are its place, the rest is what it is."""

    label: str
    mask: Mask
    name: str
    track: Track
    params: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Grid:
    """Arrays [release, attack, count, seed, end], NaN where a run has no number; budgets rise along the ends.

    Ends are aligned at the horizon, which is the last: one place to the left is one budget smaller at every count.
    `cost` has the kinds of COSTS in front; `bits` are the places in `packed` that hold which test images were right,
    NO_BITS for none. `state` [release, attack, count, seed] counts in STATES and is ABSENT for no run.
    """

    val: Array
    test: Array
    own: Array
    cost: Array
    bits: NDArray[np.int64]
    state: NDArray[np.int8]
    paid: Array


@dataclass(frozen=True, eq=False)
class Curves:
    """One task's results; `own` are the runs of attackers who choose by a part of their own samples.

    `planned` are the suite's attacks, whether or not they ran. `packed` is which test images
    were right, as it is stored until `right` is asked for it.
    """

    task: Task
    releases: tuple[Release, ...]
    planned: Sequence[Planned]
    attacks: tuple[Attacker, ...]
    counts: tuple[int, ...]
    seeds: tuple[int, ...]
    ends: tuple[tuple[int, ...], ...]
    horizons: tuple[float, ...]
    images: int
    originals: int
    source_images: int
    grid: Grid
    own: Grid | None
    packed: Texts
    protections: dict[tuple[int, int], Protection]
    refused: dict[tuple[int, int], str]

    @cached_property
    def faced(self) -> NDArray[np.bool_]:
        """Return which attacks [release, attack] were run, whatever came of it."""
        ran = (self.grid.state != ABSENT) & (self.grid.state != STATES.index("inapplicable"))
        return np.asarray(ran.any(axis=(2, 3)))

    @cached_property
    def end_steps(self) -> Array:
        """Return budgets in steps [count, end], aligned as the grid's."""
        table = np.full((len(self.counts), self.grid.val.shape[-1]), np.nan)
        for n, ends in enumerate(self.ends):
            table[n, table.shape[1] - len(ends) :] = ends
        return table

    @cached_property
    def baselines(self) -> tuple[int, ...]:
        """Return the releases from which an attacker starts without the release, `scratch` first."""
        found = [i for i, release in enumerate(self.releases) if release.baseline]
        return tuple(sorted(found, key=lambda i: BASELINES.index(self.releases[i].name)))

    def named(self, name: str) -> int | None:
        """Return the first release of a registered name."""
        return next((i for i, release in enumerate(self.releases) if release.name == name), None)

    def find(self, label: str, mask: str) -> int | None:
        """Return the attack of a label and mask."""
        return self._places.get((label, mask))

    @cached_property
    def tracks(self) -> NDArray[np.str_]:
        """Return the track of each attack."""
        return np.array([attack.track for attack in self.attacks], dtype=np.str_)

    @cached_property
    def masks(self) -> NDArray[np.str_]:
        """Return the mask of each attack."""
        return np.array([attack.mask for attack in self.attacks], dtype=np.str_)

    @cached_property
    def tracks_by_name(self) -> dict[str, set[Track]]:
        """Return the tracks that the attacks of each registered name belong to."""
        found: dict[str, set[Track]] = {}
        for attack in self.attacks:
            found.setdefault(attack.name, set()).add(attack.track)
        return found

    @cached_property
    def twins(self) -> NDArray[np.intp]:
        """Return for each attack the dense one of its label, -1 where there is none."""
        return np.array([self._places.get((attack.label, "dense"), -1) for attack in self.attacks], dtype=np.intp)

    @cached_property
    def _places(self) -> dict[tuple[str, str], int]:
        return {(attack.label, attack.mask): i for i, attack in enumerate(self.attacks)}

    def right(self, grid: Grid, place: tuple[int, ...]) -> Array:
        """Return what each original test image [originals] adds to a run's score, of which they are the mean.

        Without images it is the score alone [1].
        """
        score, at = float(grid.test[place]), int(grid.bits[place])
        if not self.originals or at == NO_BITS:
            return np.full(max(self.originals, 1), score)
        each = _by_original(self.packed.at(at), self.images, self.originals)
        return each + (score - float(each.mean()))


@lru_cache(maxsize=20_000)
def _by_original(bits: str, images: int, originals: int) -> Array:
    # Image i shows original i modulo originals, and views of one image are no independent images.
    right = unpack_scores(bits, images)
    each = np.bincount(np.arange(images) % originals, weights=right, minlength=originals)
    return np.asarray(each * (originals / images), dtype=np.float64)
