"""Who holds which images: the defender's share, the attackers' pool, their samples, and what they own of the source."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch

from ntbench.errors import UserError
from ntbench.tasks.data import Domain, Split, divided, joined, learnt, load_domain, nested_subset
from ntbench.tasks.objective import Objective, objective_of
from ntbench.types import Cell, digest

HELD_OUT = 0.2
"""The share of its images that a defender, or an attacker who chooses by its own samples, does not train on."""
PER_CLASS = 2
"""With fewer samples a class than this to choose by, an attacker cannot choose."""


class Shares:
    """The images of one cell, divided by its seed."""

    def __init__(self, cell: Cell, cache: Path | None) -> None:
        """Take a recipe; data is loaded when it is first asked for."""
        self._cell, self._cache = cell, cache

    @cached_property
    def objective(self) -> Objective:
        """Return what is learnt."""
        return objective_of(self._cell.objective)

    @cached_property
    def source(self) -> Domain:
        """Return the source domain."""
        return self._domain(self._cell.task.source)

    @cached_property
    def origin(self) -> Domain:
        """Return the domain that the model is pretrained on."""
        return self._domain(self._cell.origin)

    @cached_property
    def target(self) -> Domain:
        """Return the target domain."""
        return self._domain(self._cell.task.target)

    @cached_property
    def defenders(self) -> tuple[Split | None, Split | None]:
        """Return what a defender trains on and validates on, of all domains that it is given; None for none."""
        parts = [self._defenders(name) for name in self._cell.task.guarded]
        if not parts:
            return None, None
        return joined([train for train, _ in parts]), joined([val for _, val in parts])

    @property
    def guarded_classes(self) -> int:
        """Return the number of classes of the domains that a defender is given; raises UserError where they differ."""
        names = self._cell.task.guarded or (self._cell.task.target,)
        found = {name: self._domain(name).classes for name in names}
        if len(set(found.values())) > 1:
            raise UserError(f"defended: domains of different class counts {found} cannot be defended at once")
        return next(iter(found.values()))

    @cached_property
    def owned(self) -> Split:
        """Return the attacker's target samples; those of one seed are nested."""
        return nested_subset(self.pool, self._cell.samples, self._generator("subset"))

    @property
    def pool(self) -> Split:
        """Return the target images that attackers' samples are drawn from."""
        return self._divided(self._cell.task.target)[1]

    @property
    def subset(self) -> Split:
        """Return the target samples that an attack trains on."""
        return self.owned if self._cell.knowledge == "others" else self._own[1]

    @property
    def held_out(self) -> Split | None:
        """Return the samples by which an attacker chooses that goes by its own; None for all others."""
        return None if self._cell.knowledge == "others" else self._own[0]

    @property
    def refusal(self) -> str:
        """Return why an attacker cannot go by its own samples, or an empty string."""
        if self._cell.knowledge == "others":
            return ""
        held = round(HELD_OUT * self._cell.samples)
        if held >= PER_CLASS * self.target.classes:
            return ""
        return f"a fifth of {self._cell.samples} samples is under {PER_CLASS} a class: nothing to choose by"

    @cached_property
    def owned_source(self) -> Split:
        """Return the share of the source's training images that an attacker owns; larger shares hold smaller ones."""
        train = self.source.train
        count = max(1, round(self._cell.source_share * len(train)))
        return nested_subset(train, count, self._generator("owned source"))

    @property
    def digests(self) -> dict[str, str]:
        """Return the hash of every split by domain and part."""
        return {f"{d.name}/{part}": h for d in (self.source, self.target) for part, h in d.digests.items()}

    def seed(self, purpose: str) -> int:
        """Return a seed that methods of one task and seed share, so that they differ in the method alone."""
        return int(digest([purpose, self._cell.task.data, self._cell.seed]), 16) % 2**63

    @cached_property
    def _own(self) -> tuple[Split, Split]:
        return divided(self.owned, round(HELD_OUT * len(self.owned)), self._generator("held out"))

    def _defenders(self, name: str) -> tuple[Split, Split]:
        if self._cell.task.shared:
            return self._domain(name).train, self._domain(name).val
        share = self._divided(name)[0]
        val, train = divided(share, round(HELD_OUT * len(share)), self._generator("defender's validation"))
        return train, val

    def _divided(self, name: str) -> tuple[Split, Split]:
        """Return the defender's and the attackers' images of a domain."""
        task, train = self._cell.task, self._domain(name).train
        if task.shared:
            return train, train
        return divided(train, round(task.defender_share * len(train)), self._generator("share"))

    def _domain(self, name: str) -> Domain:
        task = self._cell.task
        domain = load_domain(name, task.image_size, self._cache, task.train_samples, task.scored_samples)
        return learnt(domain, self.objective)

    def _generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed(purpose))
