from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ntbench.engine.grid import DIED, Job, Settings, _condemned, _suspects, execute
from ntbench.engine.plan import plan
from ntbench.engine.store import Store
from ntbench.errors import UserError
from ntbench.registry import Registry
from ntbench.suite import AttackEntry, DefenseEntry, Limits, Suite
from ntbench.types import Cell

SMALL, LARGE = 20, 100
ENDED = "the process of the method ended: the line was closed"
PLUGIN = '''
"""Methods that end the process that runs them, or try to."""
import os, signal, sys
from ntbench.method import Attack, Defense, register

def end(how):
    if how == "exit":
        os._exit(1)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "sys":
        sys.exit(3)
    while how == "loop":
        pass

@register
class Crashing(Attack):
    """End the process."""
    name = "crashing"
    how: str

    def attack(self, model, ctx):
        end(self.how)
        yield model

@register
class CrashingDefense(Defense):
    """End the process."""
    name = "crashing_defense"
    how: str

    def protect(self, model, ctx):
        end(self.how)
        return model
'''


def settings(folder: Path, cache: Path, **changes: Any) -> Settings:
    limits = Limits(cell_seconds=3, protect_seconds=60)
    return replace(Settings(folder=folder, cache=cache, limits=limits, jobs=2), **changes)


def test_a_crash_costs_the_cell_or_the_row_that_crashed_and_no_other(
    tmp_path: Path, cache: Path, tiny: Suite, own_registry: Registry
) -> None:
    plugin = tmp_path / "crashing.py"
    plugin.write_text(PLUGIN)
    own_registry.load_plugin(str(plugin))
    bad = AttackEntry(name="crashing", label="{how}", grid={"how": ["kill", "sys", "loop"]})
    rows = tuple(
        DefenseEntry(name="crashing_defense", label=f"row {how}", params={"how": how}) for how in ("exit", "sys")
    )
    suite = tiny.model_copy(update={"attacks": (*tiny.attacks, bad), "defenses": (*tiny.defenses, *rows)})
    cells = [
        cell
        for cell in plan(suite)
        if (cell.defense.name == "none" and (cell.attack.name == "finetune" or cell.samples == LARGE))
        or (cell.defense.name != "none" and cell.attack.name == "finetune")
    ]
    folder = tmp_path / "run"
    folder.mkdir()
    protections: list[int] = []
    found = {
        (r.cell.defense.label, r.cell.attack.label, r.cell.samples): (
            r.status,
            r.error.splitlines()[0] if r.error else "",
        )
        for r in execute(cells, settings(folder, cache, plugins=own_registry.plugins), lambda: protections.append(1))
    }
    assert found == {
        ("none", "finetune", SMALL): ("ok", ""),
        ("none", "finetune", LARGE): ("ok", ""),
        ("none", "kill", LARGE): ("error", f"RuntimeError: {ENDED}"),
        ("none", "sys", LARGE): ("error", "RuntimeError: SystemExit: 3"),
        ("none", "loop", LARGE): ("timeout", "took longer than 3 seconds"),
        ("row exit", "finetune", SMALL): ("error", f"protection failed: RuntimeError: {ENDED}"),
        ("row exit", "finetune", LARGE): ("error", f"protection failed: RuntimeError: {ENDED}"),
        ("row sys", "finetune", SMALL): ("error", "protection failed: RuntimeError: SystemExit: 3"),
        ("row sys", "finetune", LARGE): ("error", "protection failed: RuntimeError: SystemExit: 3"),
    }
    assert list((folder / "running").iterdir()) == []
    assert len(protections) == 3


def test_an_attack_that_protects_for_itself_stands_trial_after_its_defense(cell: Cell) -> None:
    other = cell.model_copy(update={"seed": 1})
    jobs = [Job("protect", cell), Job("protect", other), Job("attack", cell), Job("attack", other)]
    waiting = {job.key: job for job in jobs}
    assert _suspects(waiting, {cell.key}) == [jobs[0], jobs[2]]
    assert _suspects(waiting, {other.key, other.protect_key}) == [jobs[1], jobs[3]]
    del waiting[cell.protect_key]
    assert _suspects(waiting, {cell.key, "unheard of"}) == [jobs[2]]


def test_a_worker_that_dies_condemns_what_it_did(tmp_path: Path, cache: Path, cell: Cell) -> None:
    class TerminatedWorkerError(Exception):
        """What loky raises."""

    found = _condemned(Job("attack", cell), TerminatedWorkerError(), settings(tmp_path, cache))
    assert found and (found.cell, found.status, found.error) == (cell, "error", DIED)
    assert _condemned(Job("protect", cell), TerminatedWorkerError(), settings(tmp_path, cache)) is None
    assert Store(tmp_path).artifact_path(cell.protect_key).exists()


def test_a_damaged_artifact_ends_the_run_with_its_remedy(tmp_path: Path, cache: Path, tiny: Suite) -> None:
    cells = plan(tiny)
    file = Store(tmp_path).artifact_path(cells[0].pretrain_key)
    file.parent.mkdir()
    file.write_bytes(b"garbage")
    with pytest.raises(UserError, match=r"cannot be read .*; delete it and run again"):
        list(execute(cells, settings(tmp_path, cache)))


def test_nothing_to_run_starts_nothing(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ntbench.engine.grid._stream", None)
    assert list(execute([], settings(tmp_path, cache))) == []


def test_a_scheduler_that_does_not_answer_is_told(tmp_path: Path, cache: Path, tiny: Suite) -> None:
    with pytest.raises(UserError, match="no Dask scheduler answers at 'nowhere'"):
        list(execute(plan(tiny), settings(tmp_path, cache, dask="nowhere")))
