"""One cell's work: the only caller of protect() and attack(), and the only one that scores."""

from __future__ import annotations

import importlib.metadata
import platform
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ntbench.engine.view import View, view_of
from ntbench.learn.models import build, pack, unpack
from ntbench.learn.train import Meter, accuracy, fit
from ntbench.method import Attack, Context, Defense
from ntbench.registry import registry
from ntbench.tasks.data import Domain, Split, load_domain, nested_subset
from ntbench.types import Budget, Cell, Protection, Provenance, digest

Artifact = tuple[dict[str, Tensor], Protection]


class Faced(NamedTuple):
    """An attack, what it sees of a released model and of its data, and what it is granted."""

    attack: Attack
    view: View
    ctx: Context


class Bench:
    """What one cell works on: its data, its fresh models and its random numbers."""

    def __init__(self, cell: Cell, device: torch.device, cache: Path | None) -> None:
        """Take a recipe; data is loaded when it is first asked for."""
        self.cell, self.device, self._cache = cell, device, cache
        self.choice = ""

    @cached_property
    def source(self) -> Domain:
        """Return the source domain."""
        return self._domain(self.cell.task.source)

    @cached_property
    def target(self) -> Domain:
        """Return the target domain."""
        return self._domain(self.cell.task.target)

    @cached_property
    def subset(self) -> Split:
        """Return the attacker's target samples; subsets of one seed are nested."""
        generator = torch.Generator().manual_seed(self._seed("subset"))
        return nested_subset(self.target.train, self.cell.ratio, generator)

    @property
    def samples(self) -> int:
        """Return how many target samples the attacker has."""
        return len(self.subset)

    @cached_property
    def attack(self) -> Attack:
        """Return the attack of the recipe."""
        method: Attack = registry.create(self.cell.attack)
        return method

    @cached_property
    def defense(self) -> Defense:
        """Return the defense of the recipe."""
        method: Defense = registry.create(self.cell.defense)
        return method

    @property
    def refusal(self) -> str:
        """Return why the attack cannot face the defense on this task, or an empty string where it can."""
        return self.attack.refuses(self.defense, self.source.classes, self.target.classes)

    def pretrained(self) -> Artifact:
        """Train on source and return the weights with what it cost."""
        # Tasks of one source share these weights, so nothing of the target may decide them.
        seed = int(self.cell.pretrain_key, 16) % 2**63
        model = build(self.cell.arch, self.source.classes, seed).to(self.device)
        generator = torch.Generator().manual_seed(seed)
        with Meter() as meter, self.numerics():
            for _ in fit(model, self.source.train.to(self.device), self.cell.pretrain, generator):
                pass
        facts = Protection(
            source_before=accuracy(model, self.source.test.to(self.device)),
            pretrain_seconds=meter.seconds,
            pretrain_flops=meter.flops,
        )
        return pack(model), facts

    def protected(self, weights: dict[str, Tensor], facts: Protection) -> Artifact:
        """Protect pretrained weights and return what is released; only weights cross the line."""
        defense = self.defense
        model = unpack(weights, self._fresh(self.source.classes, "load"))
        with _global_seeds(self.cell.protect_key), Meter() as meter, self.numerics():
            released = pack(defense.protect(model, self._defender(defense)))
        model = unpack(released, self._fresh(self.source.classes, "load"))
        comparable = self.source.classes == self.target.classes
        update = {
            "needs": defense.needs(),
            "source_after": accuracy(model, self.source.test.to(self.device)),
            "zero_shot": accuracy(model, self.target.test.to(self.device)) if comparable else None,
            "sparsity": _sparsity(model),
            "protect_seconds": meter.seconds,
            "protect_flops": meter.flops,
        }
        return released, facts.model_copy(update=update)

    def attacked(self, weights: dict[str, Tensor]) -> Iterator[tuple[float, ...]]:
        """Attack released weights and yield a row of the trajectory at every scored step and where it ends earlier."""
        attack, view, ctx = self.faced(weights)
        budget, meter = ctx.budget, Meter()
        meter.flops = view.flops
        scored, last = 0, None
        with self.seeded():
            models = attack.attack(view.model, ctx)
            for step in range(1, budget.steps + 1):
                with meter, self.numerics():
                    adapted = self._advanced(models)
                if adapted is None:
                    break
                _refuse_overspending(meter, budget, step)
                last = (step, adapted)
                if step in budget.scored:
                    yield self._scored(*last, meter, view)
                    scored = step
            else:
                self._advanced(models)  # what it returns is only told after its last yield
        if last and last[0] != scored:
            yield self._scored(*last, meter, view)

    def _advanced(self, models: Iterator[nn.Module]) -> nn.Module | None:
        try:
            return next(models)
        except StopIteration as end:
            self.choice = str(end.value or "")
            return None

    def faced(self, weights: dict[str, Tensor]) -> Faced:
        """Return the attack and what it gets to see of released weights."""
        attack, model = self.attack, unpack(weights, self._fresh(self.source.classes, "load"))
        splits = [part.to(self.device) for part in (self.subset, self.target.val, self.target.test)]
        with self.numerics():
            view = view_of(attack, model, splits, (self.cell.protect_key, self.cell.ratio))
        return Faced(attack, view, self._attacker(attack, view))

    def accuracies(self, step: int, model: nn.Module, view: View) -> tuple[float, float]:
        """Return the accuracies of an adapted model on validation and test data.

        Raises FloatingPointError on weights that are not finite.
        """
        for name, tensor in model.state_dict().items():
            if not torch.isfinite(tensor).all():
                raise FloatingPointError(f"weights {name!r} are not finite at step {step}")
        with self.numerics():
            return accuracy(model, view.val), accuracy(model, view.test)

    def _scored(self, step: int, model: nn.Module, meter: Meter, view: View) -> tuple[float, ...]:
        accuracies = self.accuracies(step, model, view)
        return (step, meter.samples, meter.flops, meter.seconds, *accuracies)

    def seeded(self) -> AbstractContextManager[None]:
        """Return a block in which the global random states depend on the recipe alone."""
        return _global_seeds(self.cell.key)

    def numerics(self) -> AbstractContextManager[Any]:
        """Return a block that computes in the recipe's precision."""
        if self.cell.precision == "float32":
            return nullcontext()
        # A cache of cast weights would outlive the optimizer's steps.
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)

    def provenance(self) -> Provenance:
        """Return where the numbers come from."""
        digests = {f"{d.name}/{part}": h for d in (self.source, self.target) for part, h in d.digests.items()}
        return Provenance(data=digests, versions=_versions(), device=self.device.type)

    def _defender(self, defense: Defense) -> Context:
        target = self.target.train.to(self.device) if defense.needs_target else None
        return self._context(
            "defense",
            self.cell.budget,
            source=self.source.train.to(self.device) if defense.needs_source else None,
            source_val=self.source.val.to(self.device) if defense.needs_source else None,
            target=target if target is None or defense.needs_target_labels else _unlabelled(target),
        )

    def _attacker(self, attack: Attack, view: View) -> Context:
        access = attack.access
        return self._context(
            "attack",
            self.cell.budget.times(attack.times),
            source=self.source.train.to(self.device) if access.source else None,
            target={"labelled": view.subset, "unlabelled": _unlabelled(view.subset), None: None}[access.target],
            target_val=view.val if access.validation else None,
        )

    def _context(self, role: str, budget: Budget, **granted: Split | None) -> Context:
        nothing = dict.fromkeys(("source", "source_val", "target", "target_val"))
        return Context(
            **nothing | {name: _copied(split) for name, split in granted.items()},
            target_classes=self.target.classes,
            budget=budget,
            seed=self._seed(role),
            device=self.device,
            fresh=lambda classes: self._fresh(classes, f"{role} fresh"),
        )

    def _domain(self, name: str) -> Domain:
        task = self.cell.task
        return load_domain(name, task.image_size, self._cache, task.train_samples, task.scored_samples)

    def _fresh(self, classes: int, purpose: str) -> nn.Module:
        return build(self.cell.arch, classes, self._seed(purpose)).to(self.device)

    def _seed(self, purpose: str) -> int:
        # Methods of one task and seed share subsets, batches and fresh heads, so that they differ in the method alone.
        task = self.cell.task.model_dump(mode="json")
        return int(digest([purpose, task, self.cell.seed]), 16) % 2**63


@cache
def _versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in ("ntbench", "torch", "timm")}
    return found | {"python": platform.python_version()}


@contextmanager
def _global_seeds(key: str) -> Iterator[None]:
    """Fix the global random states from a key, so that a method that uses them is repeatable all the same."""
    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        seed = int(key, 16)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed % 2**63)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)


def _refuse_overspending(meter: Meter, budget: Budget, step: int) -> None:
    if meter.steps > step or meter.samples > budget.samples:
        raise RuntimeError(
            f"over budget: {meter.steps} optimizer steps and {meter.samples} training samples at yield {step}; "
            f"one step a yield and {budget.samples} samples in all are allowed"
        )


def _sparsity(model: nn.Module) -> float:
    weights = [p for p in model.parameters() if p.ndim > 1]
    return sum(int((p == 0).sum()) for p in weights) / sum(p.numel() for p in weights)


def _copied(data: Split | None) -> Split | None:
    # A method that writes into its data must not reach the splits that later cells of this process use.
    return data and Split(data.x.clone(), data.y.clone())


def _unlabelled(data: Split) -> Split:
    return Split(data.x, torch.full_like(data.y, -1))
