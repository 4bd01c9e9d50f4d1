"""Entries of a suite: rows, attacks, and what their papers did."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from ntbench.types import (
    BASELINES,
    FILE,
    Grown,
    Mask,
    Recipe,
    Selection,
)


class PaperSetting(Grown):
    """The attack that a defense's own paper evaluates with, by its label in the suite.

    `scratch` is what the paper trains from scratch by, the same attack where it is empty.
    """

    later = frozenset({"scratch"})

    attack: str
    mask: Mask = "dense"
    scratch: str = ""


class Protocol(Recipe):
    """How a paper runs its attack: for so many passes, until `patience` passes bring nothing, and what it reports."""

    epochs: int = Field(ge=1)
    select: Selection = "last"
    patience: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _watches(self) -> Protocol:
        if self.patience and self.select == "last":
            raise ValueError("patience needs a score to wait for; add select = 'best val' or 'best test'")
        return self


class Entry(Recipe):
    """One method with its hyper-parameters, or the product of the value lists in `grid`.

    The label is a format string over the parameters.
    """

    name: str
    label: str = ""
    params: dict[str, Any] = {}
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}

    def variants(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the (label, parameters) pairs that this entry stands for.

        Raises ValueError on a label that its parameters cannot fill.
        """
        points = (dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values()))
        full = [self.params | point for point in points]
        try:
            return [((self.label or self.name).format(**params), params) for params in full]
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"label {self.label!r} cannot be filled ({type(error).__name__}: {error}); "
                f"use {', '.join(f'{{{name}}}' for name in full[0]) or 'plain text'}"
            ) from None


Files = Annotated[tuple[str, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)]


class DefenseEntry(Entry, Grown):
    """Rows of the table: a defense, its hyper-parameters and its paper's attack; or a release that comes as a file.

    `release` is a file of weights, or one a seed of the same defense, and `undefended` the same without protection.
    `source_accuracy` is what their owner states, as a fraction.
    """

    later = frozenset({"release", "undefended", "source_accuracy"})

    name: str = FILE
    paper: PaperSetting | None = None
    release: Files = ()
    undefended: Files = ()
    source_accuracy: float | None = Field(default=None, gt=0, le=1)

    @property
    def rows(self) -> list[str]:
        """Return the names that stand in the tables."""
        return [label for label, _ in self.variants()]

    def at(self, seed: int, params: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters at a seed, of a release its file."""
        return params | ({"weights": file_of(self.release, seed)} if self.release else {})

    @model_validator(mode="after")
    def _either(self) -> DefenseEntry:
        if (self.name == FILE) != bool(self.release):
            raise ValueError(
                f"name = {self.name!r}: give a defense's name, or `release`, the path of a file of weights"
            )
        if (self.params or self.grid) and self.release:
            raise ValueError(f"release = {self.release[0]!r} is a file, which has no `params` and no `grid`")
        if (self.undefended or self.source_accuracy) and not self.release:
            raise ValueError("undefended and source_accuracy belong to a `release`; name its file")
        return self


def file_of(files: Sequence[str], seed: int) -> str:
    """Return the file of a seed among those of one defense, or an empty string where there is none."""
    return files[seed % len(files)] if files else ""


class AttackEntry(Entry, Grown):
    """Attacks; they face the defenses that `against` lists by row or by registered name, and all where it lists none.

    The baselines `scratch` and `public` always count among those that are faced. Attacks with a `protocol` repeat a
    paper's: they have its budget in place of the suite's, stand beside what it published and enter no worst case.
    """

    later = frozenset({"protocol"})

    against: tuple[str, ...] = ()
    protocol: Protocol | None = None

    def faces(self, row: str, name: str) -> bool:
        """Return whether these attacks are run on a row, given with its defense's registered name."""
        return not self.against or bool({row, name} & {*self.against, *BASELINES})

    @property
    def singles(self) -> list[AttackEntry]:
        """Return one entry for each attack that this one stands for."""
        # A brace in a label is a field of a format string.
        labels = [(label.replace("{", "{{").replace("}", "}}"), params) for label, params in self.variants()]
        return [self.model_copy(update={"label": label, "params": p, "grid": {}}) for label, p in labels]


def joined_attacks(held: Sequence[AttackEntry], own: Sequence[AttackEntry]) -> tuple[AttackEntry, ...] | None:
    """Return the attacks of both, the earlier ones first; None where one place in the tables has two recipes."""
    before, now = ({_place(single): single for entry in part for single in entry.singles} for part in (held, own))
    if any(before[place] != now[place] for place in before.keys() & now.keys()):
        return None
    if before.keys() <= now.keys():
        return tuple(own)
    return (*held, *(single for place, single in now.items() if place not in before))


def _place(single: AttackEntry) -> tuple[str, str]:
    return single.label, single.params.get("mask", "dense")


Planned = tuple[AttackEntry, str, str]
"""An attack of a suite: its entry, label and mask."""
