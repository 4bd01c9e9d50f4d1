"""One cell from recipe to result, whatever goes wrong on the way."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ntbench.engine.bench import Artifact, Bench, Row, trajectory
from ntbench.engine.limits import guarded
from ntbench.engine.store import Store
from ntbench.learn.models import read_weights, write_weights
from ntbench.suite import Limits
from ntbench.types import Cell, Protection, Result, Status


@dataclass(frozen=True)
class Runner:
    """Computes cells against one store, on one device, within limits."""

    store: Store
    device: torch.device
    limits: Limits
    cache: Path | None = None

    def bench(self, cell: Cell) -> Bench:
        """Return what a cell works on."""
        return Bench(cell, self.device, self.cache, self.limits)

    def run(self, cell: Cell) -> Result:
        """Return the cell's result; whatever goes wrong inside becomes its status and reason."""
        start = time.perf_counter()
        bench = self.bench(cell)
        rows: list[Row] = []
        protection = None
        status, error = self.applies(bench)
        if status == "ok":
            weights, protection = self.protected(cell)
            status, error = protection.status, f"protection failed: {protection.error}"
        if status == "ok":
            status, error = guarded(self.limits.cell_seconds, lambda: rows.extend(bench.attacked(weights)))
        return result_of(bench, status, error, protection, rows, time.perf_counter() - start)

    def applies(self, bench: Bench) -> tuple[Status, str]:
        """Return whether a cell applies, as a status, and why it does not."""
        reasons: list[str] = []
        status, error = guarded(self.limits.cell_seconds, lambda: reasons.append(bench.refusal))
        return ("inapplicable", reasons[0]) if reasons and reasons[0] else (status, error)

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
            bench = self.bench(cell)
            status, error = guarded(self.limits.protect_seconds, lambda: made.append(compute(bench)))
            failed = known.model_copy(update={"status": status, "error": error})
            weights, facts = made[0] if made else ({}, failed)
            write_weights(path, weights, facts.model_dump_json())

        weights, facts = read_weights(self.store.artifact(key, make))
        return weights, Protection.model_validate_json(facts)


def result_of(
    bench: Bench, status: Status, error: str, protection: Protection | None, rows: list[Row], seconds: float
) -> Result:
    """Return the result of a cell that ended in some way after so many rows and seconds."""
    target, source = bench.shares.target, bench.shares.source
    return Result(
        cell=bench.cell,
        status=status,
        error=error if status != "ok" else "",
        choice=bench.choice,
        track=bench.attack.access.track,
        images=len(target.test),
        originals=target.originals,
        source_images=len(source.test),
        paid=bench.paid,
        protection=protection,
        trajectory=trajectory(rows),
        drawn=bench.drawn,
        frechet=bench.frechet,
        provenance=bench.provenance(),
        seconds=seconds,
        peak_mb=_peak_mb(),
    )


def _peak_mb() -> float:
    """Return the largest resident memory of this process in MiB."""
    # getrusage would do, but a process that was forked and executed inherits its parent's peak there.
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
    return int(status.read_text(encoding="ascii").partition("VmHWM:")[2].split()[0]) / 1024
