"""One cell from recipe to result, whatever goes wrong on the way."""

from __future__ import annotations

import resource
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ntbench.engine.bench import Artifact, Bench
from ntbench.engine.limits import guarded
from ntbench.engine.store import Store
from ntbench.engine.together import Lane, kinship, prepared, train_lanes
from ntbench.learn.models import read_weights, write_weights
from ntbench.suite import Limits
from ntbench.types import Cell, Protection, Result, Status, Trajectory


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
        if reason := bench.refusal:
            return Result(cell=cell, status="inapplicable", error=reason, provenance=bench.provenance())
        weights, protection = self.protected(cell)
        status, error = protection.status, f"protection failed: {protection.error}"
        rows: list[tuple[float, ...]] = []
        if status == "ok":
            status, error = guarded(self.limits.cell_seconds, lambda: rows.extend(bench.attacked(weights)))
        return _result(bench, status, error, protection, rows, time.perf_counter() - start)

    def run_together(self, cells: Sequence[Cell]) -> list[Result]:
        """Return the results of cells in their order: those of `run`, but for rounding and for seconds.

        Attacks of one training each take their steps together where all that `likeness` names agrees, and share the
        seconds equally. Everything else runs alone, as does what an error or a time limit cuts short.
        """
        done: dict[str, Result] = {}
        groups: dict[object, list[Lane]] = {}
        for lane in filter(None, map(self._lane, cells)) if len(cells) > 1 else ():
            groups.setdefault(lane.likeness, []).append(lane)
        for group in groups.values():
            if len(group) > 1:
                done |= self._trained(group)
        return [done.get(cell.key) or self.run(cell) for cell in cells]

    def _trained(self, lanes: list[Lane]) -> dict[str, Result]:
        """Train cells together and return the results of those that came to an end, by the cell's key."""
        start = time.perf_counter()
        _, error = guarded(len(lanes) * self.limits.cell_seconds, partial(train_lanes, lanes))
        if error:
            first, _, _ = error.partition("\n")
            warnings.warn(f"{len(lanes)} cells cannot train together and run alone: {first}", stacklevel=3)
        seconds = (time.perf_counter() - start) / len(lanes)
        return {
            lane.bench.cell.key: _result(
                lane.bench, lane.status, lane.error, lane.protection, lane.rows, lane.seconds + seconds
            )
            for lane in lanes
            if lane.status
        }

    def _lane(self, cell: Cell) -> Lane | None:
        """Return a cell made ready to train beside others, or None where it has to run alone."""
        bench = Bench(cell, self.device, self.cache)
        if bench.refusal or not kinship(cell):
            return None
        weights, protection = self.protected(cell)
        if protection.status != "ok":
            return None
        made: list[Lane | None] = []
        guarded(self.limits.cell_seconds, lambda: made.append(prepared(bench, weights, protection)))
        return made[0] if made else None

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


def _result(
    bench: Bench,
    status: Status,
    error: str,
    protection: Protection,
    rows: list[tuple[float, ...]],
    seconds: float,
) -> Result:
    return Result(
        cell=bench.cell,
        status=status,
        error=error,
        choice=bench.choice,
        samples=bench.samples,
        protection=protection,
        trajectory=_columns(rows),
        provenance=bench.provenance(),
        seconds=seconds,
        peak_mb=_peak_mb(),
    )


def _columns(rows: list[tuple[float, ...]]) -> Trajectory:
    return Trajectory.model_validate(dict(zip(Trajectory.model_fields, zip(*rows, strict=True), strict=False)))


def _peak_mb() -> float:
    """Return the largest resident memory of this process in MiB."""
    # getrusage would do, but a process that was forked and executed inherits its parent's peak there.
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
    return int(status.read_text(encoding="ascii").partition("VmHWM:")[2].split()[0]) / 1024
