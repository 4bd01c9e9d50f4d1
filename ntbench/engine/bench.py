"""One cell's work: who holds which images, what a method is granted, and the scores of what it hands over."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from ntbench.engine import apart
from ntbench.engine.apart import Bounds
from ntbench.engine.foreign import is_foreign
from ntbench.engine.likeness import Make, maker, of_attacker, of_release
from ntbench.engine.rehearsal import shares_of
from ntbench.engine.subject import SPLITS, Grant, Snapshot, Weights, attacked, protected
from ntbench.engine.view import View, view_of
from ntbench.learn.fit import fit
from ntbench.learn.meter import Cost, Meter
from ntbench.learn.models import build, check_finite, pack, reset_head, start, unpack
from ntbench.learn.scoring import accuracy, correct, validated
from ntbench.learn.trainable import check_trainable
from ntbench.method import Attack, Defense
from ntbench.registry import registry
from ntbench.suite import Limits
from ntbench.tasks.data import Split
from ntbench.types import FILE, Arch, Cell, Epochs, Protection, Provenance, Trajectory, digest, pack_scores

LIMITS = Limits()
Artifact = tuple[Weights, Protection]
Row = tuple[int, int, int, float, float, float, str, float | None]
"""A trajectory's columns at one budget."""


class Bench:
    """What one cell works on: its data, its fresh models and its random numbers."""

    def __init__(self, cell: Cell, device: torch.device, cache: Path | None, limits: Limits = LIMITS) -> None:
        """Take a recipe; data is loaded when it is first asked for. The limits are those of foreign code."""
        self.cell, self.device, self._limits = cell, device, limits
        self.shares = shares_of(cell, cache)
        self.choice, self.paid, self.drawn, self.lanes = "", 0, "", 1
        self.frechet: float | None = None

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
        """Return why the cell does not apply, or an empty string where it does."""
        if self.defense.needs_target and not self.cell.task.guarded:
            return f"{self.defense.name} needs a target, and nobody is defended against"
        classes = self.shares.source.classes, self.shares.target.classes
        objective = self.shares.objective
        return (
            objective.refuses(self.defense)
            or objective.refuses(self.attack)
            or self.attack.refuses(self.defense, *classes)
            or self._unfit
            or self.shares.refusal
        )

    @property
    def _unfit(self) -> str:
        access = self.attack.access
        if self.attack.on_features and (access.source or access.pool or not access.weights):
            return "an attack on features gets the head and its samples; its access must name weights and no more"
        if is_foreign(self.attack):
            return apart.unfit(self.cell.attack, self.cell.arch)
        return self.attack.unfit(_blank(self.cell.arch.model_dump_json()))

    def pretrained(self) -> Artifact:
        """Train on source, or take the weights that stay as they are, and return them with what that cost."""
        # Tasks of one source share these weights, so no image of the target may decide them.
        cell, source, training = self.cell, self.shares.origin, self.cell.start
        seed = int(cell.pretrain_key, 16) % 2**63
        model = start(cell.arch, source.classes, seed, training.weights, not training.trained).to(self.device)
        if not (training.trained or training.weights):
            return pack(model), Protection()
        cost = self._trained(model, source.train.to(self.device), seed) if training.trained else None
        right = correct(model, source.test.to(self.device))
        score = float(right.double().mean())
        facts = Protection(
            source_before=score,
            natural_before=source.test.objective.natural(score),
            clean=pack_scores(right.numpy()),
            **{f"{name}_before": value for name, value in of_release(self._made(model), source.train)[0].items()},
            pretrain_seconds=cost and cost.seconds,
            pretrain_flops=cost and cost.flops,
        )
        return pack(model), facts

    def _trained(self, model: nn.Module, data: Split, seed: int) -> Cost:
        generator = torch.Generator().manual_seed(seed)
        with Meter() as meter, self._grant({}, (1,)).numerics():
            for _ in fit(model, data, self.cell.start, generator):
                pass
        return meter.cost

    def protected(self, weights: Weights, facts: Protection) -> Artifact:
        """Protect pretrained weights and return what is released; only weights cross the line."""
        released, cost = self._released(self._defenders(self._headed(weights)))
        model = unpack(released, self._fresh(self.shares.source.classes))
        check_trainable(model, self.shares.source.train)
        right = correct(model, self.shares.source.test.to(self.device))
        score = float(right.double().mean())
        comparable = self.shares.source.classes == self.shares.target.classes
        # Nobody here knows what it cost to make a file.
        known = None if self.cell.defense.name == FILE else cost
        distances, shown = of_release(self._made(model), self.shares.origin.train)
        update = {
            "needs": self.defense.needs(),
            "source_after": score,
            "natural": self.shares.source.test.objective.natural(score),
            "kept": pack_scores(right.numpy()),
            "zero_shot": accuracy(model, self.shares.target.test.to(self.device)) if comparable else None,
            "sparsity": _sparsity(model),
            **distances,
            "drawn": shown,
            "protect_seconds": known and known.seconds,
            "protect_flops": known and known.flops,
            "protect_steps": known and known.steps,
        }
        return released, facts.model_copy(update=update)

    def _made(self, model: nn.Module) -> Make:
        return maker(model, self.shares.objective, self.cell.task.image_size, self.device)

    def _released(self, grant: Grant) -> tuple[Weights, Cost]:
        if is_foreign(self.defense):
            return apart.protect(self.cell.defense, grant, Bounds(self._limits.protect_seconds, self._limits.memory_mb))
        return protected(self.defense, grant)

    def _headed(self, weights: Weights) -> Weights:
        """Return weights whose head fits the source; what was trained on other classes gets a fresh one."""
        if self.shares.origin.classes == self.shares.source.classes:
            return weights
        model = unpack(weights, self._fresh(self.shares.origin.classes))
        reset_head(model, self.shares.source.classes, torch.Generator().manual_seed(self.shares.seed("head")))
        return pack(model)

    def attacked(self, weights: Weights) -> Iterator[Row]:
        """Attack released weights and yield a row of the trajectory at every budget, until a protocol ends the run."""
        rows: list[Row] = []
        view, grant = self.faced(weights)
        for snapshot in self._snapshots(grant):
            rows.append(self._scored(snapshot, view, grant))
            yield rows[-1]
            if isinstance(self.cell.budget, Epochs) and self.cell.budget.over(trajectory(rows)):
                return

    def faced(self, weights: Weights) -> tuple[View, Grant]:
        """Return what an attack on released weights may see and is scored on, and all that it gets."""
        model = unpack(weights, self._fresh(self.shares.source.classes))
        parts = [p.to(self.device) for p in (self.shares.subset, self.shares.target.val, self.shares.target.test)]
        held = self.shares.held_out and self.shares.held_out.to(self.device)
        with self._grant({}, self.cell.budget.ends).numerics():
            view = view_of(self.attack, model, [*parts, held], (self.cell.protect_key, digest(self.cell.task.data)))
        return view, self._attackers(view, weights)

    def _snapshots(self, grant: Grant) -> Iterator[Snapshot]:
        if not is_foreign(self.attack):
            return attacked(self.attack, grant)
        bounds = Bounds(self._limits.cell_seconds, self._limits.memory_mb)
        return apart.attack(self.cell.attack, grant, bounds, self.attack.on_features)

    def _scored(self, snapshot: Snapshot, view: View, grant: Grant) -> Row:
        # What answers is scored, whatever its weights hold: a release may carry numbers that overflow in training.
        try:
            with grant.numerics():
                val, right = validated(snapshot.model, view.val, self.cell.scoring), correct(snapshot.model, view.test)
        except FloatingPointError:
            check_finite(snapshot.model, f" at step {snapshot.step}")
            raise
        return self.row(snapshot, view, grant, val, right)

    def row(self, snapshot: Snapshot, view: View, grant: Grant, val: float, right: Tensor) -> Row:
        """Return the row of a budget, from the score on validation data and what each test image adds to its own."""
        self.choice, self.paid, cost = snapshot.choice, snapshot.paid, snapshot.cost
        with grant.numerics():
            own = validated(snapshot.model, view.held, self.cell.scoring) if view.held else None
        if snapshot.step == self.cell.budget.ends[-1]:
            self.frechet, self.drawn = of_attacker(self._made(snapshot.model), self.shares.target.train)
        samples, flops = cost.samples + view.samples, cost.flops + view.flops
        bits = pack_scores(right.numpy())
        return (snapshot.step, samples, flops, cost.seconds, val, float(right.double().mean()), bits, own)

    def provenance(self) -> Provenance:
        """Return where the numbers come from."""
        return Provenance(data=self.shares.digests, versions=_versions(), device=self.device.type, lanes=self.lanes)

    def _defenders(self, weights: Weights) -> Grant:
        defense, shares = self.defense, self.shares
        target, target_val = shares.defenders if defense.needs_target else (None, None)
        if not defense.needs_target_labels:
            target, target_val = (split and split.unlabelled() for split in (target, target_val))
        return self._grant(
            weights,
            (1,),
            "defense",
            source=shares.source.train if defense.needs_source else None,
            source_val=shares.source.val if defense.needs_source else None,
            target=target,
            target_val=target_val,
        )

    def _attackers(self, view: View, weights: Weights) -> Grant:
        access = self.attack.access
        target = {"labelled": view.subset, "unlabelled": view.subset.unlabelled(), None: None}[access.target]
        return self._grant(
            view.weights or weights,
            self.cell.budget.ends,
            "attack",
            source=self.shares.owned_source if access.source else None,
            target=target,
            unlabelled=self.shares.pool.unlabelled() if access.pool else None,
        )

    def _grant(self, weights: Weights, ends: tuple[int, ...], role: str = "load", **data: Split | None) -> Grant:
        nothing: dict[str, Split | None] = dict.fromkeys(SPLITS)
        cell = self.cell
        classes = self.shares.guarded_classes if role == "defense" else self.shares.target.classes
        return Grant(
            arch=cell.arch,
            classes=self.shares.source.classes,
            weights={name: tensor.to(self.device) for name, tensor in weights.items()},
            **nothing | {name: split and split.to(self.device) for name, split in data.items()},
            target_classes=classes,
            ends=ends,
            seed=self.shares.seed(role),
            fresh_seed=self.shares.seed(f"{role} fresh"),
            key=cell.protect_key if role == "defense" else cell.key,
            precision=cell.precision,
            device=self.device,
            objective=self.shares.objective,
        )

    def _fresh(self, classes: int) -> nn.Module:
        return build(self.cell.arch, classes, seed=0).to(self.device)


def trajectory(rows: Sequence[Row]) -> Trajectory:
    """Return rows as columns."""
    return Trajectory.model_validate(dict(zip(Trajectory.model_fields, zip(*rows, strict=True), strict=False)))


@cache
def _blank(arch: str) -> nn.Module:
    """Return a model of an architecture by which attacks tell whether they can face it."""
    return build(Arch.model_validate_json(arch), 2, seed=0)


@cache
def _versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in ("ntbench", "torch", "timm")}
    return found | {"python": platform.python_version()}


def _sparsity(model: nn.Module) -> float:
    weights = [p for p in model.parameters() if p.ndim > 1]
    return sum(int((p == 0).sum()) for p in weights) / sum(p.numel() for p in weights)
