"""Cells side by side: what each of them gives alone, but for the order of sums, and alone what cannot be shared."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Inside
from rich.console import Console
from torch import nn

from ntbench.engine.grid import Job, Settings, _jobs, _one_by_one, _work
from ntbench.engine.lanes import grouped, run_lanes
from ntbench.engine.plan import plan
from ntbench.engine.request import Request, Workers
from ntbench.engine.runner import Runner
from ntbench.engine.session import Session
from ntbench.method import Context, Defense
from ntbench.registry import Registry
from ntbench.report.origin import provenance
from ntbench.suite import AttackEntry, DefenseEntry, Limits, Suite
from ntbench.types import Arch, Budget, Cell, Epochs, Provenance, Result

RATES = [1e-3, 1e-2]
FEW = 2
"""Images by which scores may differ."""
VALIDATION = 180
"""Validation images of digits."""


def of(suite: Suite, *attacks: dict[str, Any], **changes: Any) -> list[Cell]:
    entries = tuple(AttackEntry.model_validate({"name": "finetune", "label": "{lr}", **entry}) for entry in attacks)
    return plan(suite.model_copy(update={"attacks": entries, **changes}))


@pytest.fixture
def rates(tiny: Suite) -> list[Cell]:
    """Eight cells in two groups: two seeds and two rates, of two sample counts."""
    entry = {"params": {"batch_size": 8, "optimizer": "adam"}, "grid": {"lr": RATES}}
    return of(tiny, entry, seeds=(0, 1))


def by_key(results: Any) -> dict[str, Result]:
    return {result.cell.key: result for result in results}


def assert_alike(found: Result, alone: Result) -> None:
    assert (found.status, found.images, found.paid, found.track) == (
        alone.status,
        alone.images,
        alone.paid,
        alone.track,
    )
    one, other = found.trajectory, alone.trajectory
    assert (one.step, one.samples, one.flops) == (other.step, other.samples, other.flops)
    assert one.test == pytest.approx(other.test, abs=FEW / alone.images)
    assert one.val == pytest.approx(other.val, abs=FEW / VALIDATION)
    assert [v is None or round(v * 24) for v in one.own] == [v is None or round(v * 24) for v in other.own]
    assert found.protection == alone.protection


def test_cells_side_by_side_give_what_they_give_alone(runner: Runner, rates: list[Cell]) -> None:
    groups = grouped(rates, 4)
    assert [len(group) for group in groups] == [4, 4]
    found = by_key(run_lanes(runner, groups[1]))
    assert found.keys() == {cell.key for cell in groups[1]}
    for cell in groups[1]:
        result = found[cell.key]
        assert_alike(result, runner.run(cell))
        assert result.provenance and result.provenance.lanes == 4
        assert result.provenance.place == "cpu in lanes"
        assert result.seconds > 0


def test_who_goes_by_samples_of_its_own_goes_by_its_own_in_a_lane(runner: Runner, rates: list[Cell]) -> None:
    cells = [cell.model_copy(update={"knowledge": "own", "samples": 120}) for cell in rates[:2]]
    found = by_key(run_lanes(runner, cells))
    for cell in cells:
        assert_alike(found[cell.key], runner.run(cell))
        assert None not in found[cell.key].trajectory.own
    assert {result.provenance and result.provenance.lanes for result in found.values()} == {2}


def test_a_lane_that_diverges_keeps_what_it_reached_and_the_others_all(runner: Runner, tiny: Suite) -> None:
    params = {"batch_size": 8, "optimizer": "sgd", "schedule": "constant"}
    cells = [c for c in of(tiny, {"params": params, "grid": {"lr": [1e-3, 1e4]}}) if c.samples == 48]
    found = by_key(run_lanes(runner, cells))
    for cell in cells:
        alone = runner.run(cell)
        assert_alike(found[cell.key], alone)
        assert found[cell.key].error.split()[-2:] == alone.error.split()[-2:]
    assert {found[cell.key].status for cell in cells} == {"ok", "diverged"}


@pytest.mark.parametrize(
    ("params", "groups"),
    [
        ({"scope": "head"}, 2),
        ({"optimizer": "muon"}, 1),
    ],
)
def test_cells_that_cannot_share_run_alone(runner: Runner, tiny: Suite, params: dict[str, Any], groups: int) -> None:
    """The head alone trains on features; an optimizer looks at whole tensors, which its fits tell."""
    entry = {"params": {"batch_size": 8, **params}, "grid": {"lr": RATES}}
    cells = [cell for cell in of(tiny, entry) if cell.samples == 12]
    found = grouped(cells, 4)
    assert len(found) == groups
    for result in (result for group in found for result in run_lanes(runner, group)):
        assert result.trajectory.correct == runner.run(result.cell).trajectory.correct
        assert result.provenance and result.provenance.lanes == 1


def test_what_may_not_differ_tells_groups_apart(tiny: Suite, rates: list[Cell]) -> None:
    cells = [cell for cell in rates if cell.samples == 12]
    others = [
        *of(tiny, {"params": {"batch_size": 8, "optimizer": "sgd", "lr": 1e-3}})[:1],
        *(cells[0].model_copy(update={name: value}) for name, value in CHANGED.items()),
    ]
    assert [len(group) for group in grouped([*cells, *others], 8)] == [4] + [1] * len(others)
    assert [len(group) for group in grouped(cells, 3)] == [3, 1]
    assert [len(group) for group in grouped(cells, 1)] == [1] * 4
    for rough in ("precision", "scoring"):
        alone = [cell.model_copy(update={rough: "bfloat16"}) for cell in cells]
        assert [len(group) for group in grouped(alone, 4)] == [1] * 4
    patient = Epochs(epochs=3, each=2, select="best val", patience=1)
    assert [len(g) for g in grouped([c.model_copy(update={"budget": patient}) for c in cells], 4)] == [1] * 4


CHANGED: dict[str, Any] = {
    "samples": 48,
    "knowledge": "own",
    "source_share": 0.5,
    "arch": Arch(name="cnn_bn"),
    "budget": Budget(t90=1.0),
}


def test_one_cell_that_ends_before_leaves_the_others_together(
    runner: Runner, tiny: Suite, own_registry: Registry
) -> None:
    own_registry.register(Failing)
    rows = (DefenseEntry(name="failing"), *tiny.defenses)
    cells = of(tiny, {"params": {"batch_size": 8}, "grid": {"lr": RATES}}, defenses=rows)
    (group,) = grouped([cell for cell in cells if cell.samples == 12], 8)
    assert len(group) == 4
    found = [(r.cell.defense.name, r.status, r.provenance and r.provenance.lanes) for r in run_lanes(runner, group)]
    assert sorted(found) == [("failing", "error", 1)] * 2 + [("none", "ok", 2)] * 2


class Failing(Defense):
    """Raises."""

    name = "failing"

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        raise ValueError("no")


@pytest.mark.parametrize(("error", "status", "side"), [(RuntimeError, "ok", 1), (TimeoutError, "timeout", 2)])
def test_where_all_lanes_end_together_each_runs_alone_but_for_the_time(
    runner: Runner,
    rates: list[Cell],
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
    status: str,
    side: int,
) -> None:
    def end(*_: object) -> None:
        raise error("over")

    monkeypatch.setattr("ntbench.engine.lanes._climb", end)
    found = list(run_lanes(runner, grouped(rates, 2)[0]))
    assert [(r.status, r.provenance and r.provenance.lanes) for r in found] == [(status, side)] * 2


def test_cells_that_killed_their_worker_together_stand_trial_one_by_one(
    tmp_path: Path, cache: Path, rates: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def stream(jobs: list[Job], _: object) -> Iterator[tuple[str, list[Result]]]:
        tried.extend(job.key for job in jobs)
        yield jobs[0].key, [Result(cell=jobs[0].cell, status="ok")]

    monkeypatch.setattr("ntbench.engine.grid._stream", stream)
    found = _one_by_one([Job("attack", rates[0], rates[1:3])], Settings(tmp_path, cache, Limits()))
    assert [result.cell for result in found] == rates[:3]
    assert tried == [cell.key for cell in rates[:3]]


def test_an_older_row_of_no_lanes_stays_as_it_is() -> None:
    old = {"data": {}, "versions": {}, "device": "cpu"}
    assert Provenance.model_validate(old).model_dump(mode="json") == old
    assert Provenance.model_validate(old).place == "cpu"
    assert Provenance.model_validate({**old, "lanes": 4}).model_dump(mode="json") == {**old, "lanes": 4}


def test_a_run_in_lanes_goes_on_where_it_was_interrupted(
    tmp_path: Path, own_registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def in_this_process(cells: list[Cell], settings: Settings, protected: Any) -> Iterator[Result]:
        for job in _jobs(cells, settings.attack, settings.lanes):
            sizes.extend([1 + len(job.beside)] * (job.stage == "attack"))
            yield from _work(job, settings)[1]

    monkeypatch.setattr("ntbench.engine.grid.execute", in_this_process)
    monkeypatch.setattr("ntbench.engine.grid.limit_memory", lambda megabytes: None)
    request = Request(Suite.model_validate(tomllib.loads(SUITE)))
    session = Session(tmp_path / "run", Console(quiet=True))
    session.run(request, Workers(lanes=4))
    first = by_key(session.store.results())
    assert {result.provenance and result.provenance.lanes for result in first.values()} == {4}
    lost = sorted(first)[:3]
    session.store.forget(lost)
    session.run(request, Workers(lanes=4))
    second = by_key(session.store.results())
    assert {key: second[key] for key in second if key not in lost} == {
        key: first[key] for key in first if key not in lost
    }
    for key in lost:
        assert_alike(second[key], first[key])
    assert sizes[:2] == [4, 4] and sum(sizes[2:]) == 3
    assert provenance(list(second.values()))["Devices"]["device"].startswith("cpu")
    assert "cpu in lanes" in provenance(list(first.values()))["Devices"]["device"]


def test_the_command_line_says_how_many_lanes(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Workers] = []
    monkeypatch.setattr("ntbench.cli.running.compute", lambda request, out, workers, *others: asked.append(workers))
    for words in ((), ("--lanes", 4)):
        assert inside("run", "smoke", *words).exit_code == 0
    assert [workers.lanes for workers in asked] == [0, 4]
    refused = inside("run", "smoke", "--lanes", 0)
    assert refused.exit_code == 2 and "--lanes" in refused.output


SUITE = """
name = "eight"
version = 1
summary = "eight cells"
seeds = [0, 1]
paper = { attack = "0.001", scratch = "0.001" }
arch = { name = "cnns_bn" }
pretrain = { steps = 3, batch_size = 16 }
tasks = [{ source = "digits", target = "digits_m", image_size = 8, levels = [
  { samples = 12, t90 = 0.5, plateau = 0.3 }, { samples = 48, t90 = 0.5, plateau = 0.4 } ] }]
defenses = [{ name = "none" }]
attacks = [{ name = "finetune", label = "{lr}", params = { batch_size = 8 }, grid = { lr = [1e-3, 1e-2] } }]
"""


@pytest.mark.parametrize(
    ("device", "asked", "lanes"), [("cpu", 0, 1), ("cpu", 3, 3), ("cuda:1", 0, 32), ("cuda", 1, 1)]
)
def test_lanes_by_default_are_for_accelerators(device: str, asked: int, lanes: int) -> None:
    assert Workers(device=device, lanes=asked).side_by_side == lanes
