"""One cell from recipe to result: the only caller of protect() and attack(), and the only one that scores."""

from __future__ import annotations

import importlib.metadata
import platform
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ntbench.data import Domain, Split, load_domain, nested_subset
from ntbench.limits import guarded
from ntbench.method import Access, Attack, Context, Defense
from ntbench.models import build, pack, read_weights, unpack, write_weights
from ntbench.registry import registry
from ntbench.store import Store
from ntbench.suite import Limits
from ntbench.train import Meter, accuracy, fit
from ntbench.types import Budget, Cell, Protection, Provenance, Result, Trajectory, digest

Artifact = tuple[dict[str, Tensor], Protection]


@dataclass(frozen=True)
class Runner:
    """Computes cells against one store, on one device, within limits."""

    store: Store
    device: torch.device
    limits: Limits
    cache: Path | None = None

    def run(self, cell: Cell) -> Result:
        """Return the cell's result; whatever goes wrong inside becomes its status and reason."""
        start = time.perf_counter()
        bench = Bench(cell, self.device, self.cache)
        weights, protection = self.protected(cell)
        status, error = protection.status, f"protection failed: {protection.error}"
        rows: list[tuple[float, ...]] = []
        if status == "ok":
            status, error = guarded(self.limits.cell_seconds, lambda: rows.extend(bench.attacked(weights)))
        return Result(
            cell=cell,
            status=status,
            error=error,
            samples=bench.samples,
            protection=protection,
            trajectory=_columns(rows),
            provenance=bench.provenance(),
            seconds=time.perf_counter() - start,
            peak_mb=_peak_mb(),
        )

    def protected(self, cell: Cell) -> Artifact:
        """Return the protected weights of a cell and the facts about them, computing them where they are absent."""

        def protect(bench: Bench) -> Artifact:
            return bench.protected(*plain)

        plain = self._artifact(cell.pretrain_key, cell, Bench.pretrained, Protection())
        if plain[1].status != "ok":
            return plain
        return self._artifact(cell.protect_key, cell, protect, plain[1])

    def condemn(self, cell: Cell, reason: str) -> None:
        """Record that protecting a cell ended the process that did it."""

        def make(path: Path) -> None:
            write_weights(path, {}, Protection(status="error", error=reason).model_dump_json())

        self.store.artifact(cell.protect_key, make)

    def _artifact(self, key: str, cell: Cell, compute: Callable[[Bench], Artifact], known: Protection) -> Artifact:
        def make(path: Path) -> None:
            made: list[Artifact] = []
            bench = Bench(cell, self.device, self.cache)
            status, error = guarded(self.limits.protect_seconds, lambda: made.append(compute(bench)))
            failed = known.model_copy(update={"status": status, "error": error})
            weights, facts = made[0] if made else ({}, failed)
            write_weights(path, weights, facts.model_dump_json())

        weights, facts = read_weights(self.store.artifact(key, make))
        return weights, Protection.model_validate_json(facts)


class Bench:
    """What one cell works on: its data, its fresh models and its random numbers."""

    def __init__(self, cell: Cell, device: torch.device, cache: Path | None) -> None:
        """Take a recipe; data is loaded when it is first asked for."""
        self.cell, self.device, self._cache = cell, device, cache

    @cached_property
    def source(self) -> Domain:
        """Return the source domain."""
        return load_domain(self.cell.task.source, self.cell.task.image_size, self._cache)

    @cached_property
    def target(self) -> Domain:
        """Return the target domain."""
        return load_domain(self.cell.task.target, self.cell.task.image_size, self._cache)

    @cached_property
    def subset(self) -> Split:
        """Return the attacker's target samples; subsets of one seed are nested."""
        generator = torch.Generator().manual_seed(self._seed("subset"))
        return nested_subset(self.target.train, self.cell.ratio, generator)

    @property
    def samples(self) -> int:
        """Return how many target samples the attacker has."""
        return len(self.subset)

    def pretrained(self) -> Artifact:
        """Train on source and return the weights with what it cost."""
        # Tasks of one source share these weights, so nothing of the target may decide them.
        seed = int(self.cell.pretrain_key, 16) % 2**63
        model = build(self.cell.arch, self.source.classes, seed).to(self.device)
        generator = torch.Generator().manual_seed(seed)
        with Meter() as meter:
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
        defense: Defense = registry.create(self.cell.defense)
        model = unpack(weights, self._fresh(self.source.classes, "load"))
        with _global_seeds(self.cell.protect_key), Meter() as meter:
            released = pack(defense.protect(model, self._defender(defense)))
        model = unpack(released, self._fresh(self.source.classes, "load"))
        comparable = self.source.classes == self.target.classes
        update = {
            "source_after": accuracy(model, self.source.test.to(self.device)),
            "zero_shot": accuracy(model, self.target.test.to(self.device)) if comparable else None,
            "sparsity": _sparsity(model),
            "protect_seconds": meter.seconds,
            "protect_flops": meter.flops,
        }
        return released, facts.model_copy(update=update)

    def attacked(self, weights: dict[str, Tensor]) -> Iterator[tuple[float, ...]]:
        """Attack released weights and yield a row of the trajectory at every scored step."""
        attack: Attack = registry.create(self.cell.attack)
        model = unpack(weights, self._fresh(self.source.classes, "load"))
        val, test = self.target.val.to(self.device), self.target.test.to(self.device)
        budget, meter = self.cell.budget, Meter()
        with _global_seeds(self.cell.key):
            models = attack.attack(model, self._attacker(attack.access))
            for step in range(1, budget.steps + 1):
                with meter:
                    adapted = next(models, None)
                if adapted is None:
                    break
                _refuse_overspending(meter, budget, step)
                if step in budget.scored:
                    yield (
                        step,
                        meter.samples,
                        meter.flops,
                        meter.seconds,
                        accuracy(adapted, val),
                        accuracy(adapted, test),
                    )

    def provenance(self) -> Provenance:
        """Return where the numbers come from."""
        digests = {f"{d.name}/{part}": h for d in (self.source, self.target) for part, h in d.digests.items()}
        return Provenance(data=digests, versions=_versions(), device=self.device.type)

    def _defender(self, defense: Defense) -> Context:
        target = self.target.train.to(self.device) if defense.needs_target else None
        if target is not None and not defense.needs_target_labels:
            target = _unlabelled(target)
        return self._context(self.source.train.to(self.device), target, self.source.val.to(self.device), "defense")

    def _attacker(self, access: Access) -> Context:
        target = self.subset.to(self.device) if access.target else None
        if target is not None and access.target == "unlabelled":
            target = _unlabelled(target)
        return self._context(self.source.train.to(self.device) if access.source else None, target, None, "attack")

    def _context(self, source: Split | None, target: Split | None, source_val: Split | None, role: str) -> Context:
        return Context(
            source=_copied(source),
            target=_copied(target),
            source_val=_copied(source_val),
            target_classes=self.target.classes,
            budget=self.cell.budget,
            seed=self._seed(role),
            device=self.device,
            fresh=lambda classes: self._fresh(classes, f"{role} fresh"),
        )

    def _fresh(self, classes: int, purpose: str) -> nn.Module:
        return build(self.cell.arch, classes, self._seed(purpose)).to(self.device)

    def _seed(self, purpose: str) -> int:
        # Methods of one task and seed share subsets, batches and fresh heads, so that they differ in the method alone.
        task = self.cell.task.model_dump(mode="json")
        return int(digest([purpose, task, self.cell.seed]), 16) % 2**63


def _columns(rows: list[tuple[float, ...]]) -> Trajectory:
    return Trajectory.model_validate(dict(zip(Trajectory.model_fields, zip(*rows, strict=True), strict=False)))


@cache
def _versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in ("ntbench", "torch", "timm")}
    return found | {"python": platform.python_version()}


def _peak_mb() -> float:
    """Return the largest resident memory of this process in MiB."""
    # getrusage would do, but a process that was forked and executed inherits its parent's peak there.
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
    return int(status.read_text(encoding="ascii").partition("VmHWM:")[2].split()[0]) / 1024


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
