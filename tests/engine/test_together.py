from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import CNN, TIMM, context, domain

from ntbench.engine.grid import DIED, Job, Settings, _groups, execute
from ntbench.engine.plan import plan
from ntbench.engine.runner import Runner
from ntbench.engine.session import at_once
from ntbench.engine.store import Store
from ntbench.engine.together import Lane, fit_together, rehearsed, train_lanes
from ntbench.learn.models import build, head
from ntbench.learn.train import Fit, Meter
from ntbench.registry import Registry, registry
from ntbench.suite import AttackEntry, DefenseEntry, Limits, PaperSetting, Suite
from ntbench.tasks.data import Split
from ntbench.types import Arch, Cell, Result, Training

STEPS = 20
TRAININGS = [
    Training(optimizer="sgd", lr=5e-2),
    Training(optimizer="momentum", lr=1e-2, schedule="cosine", warmup=3, weight_decay=1e-3),
    Training(optimizer="adam", lr=1e-3, schedule="linear"),
    Training(optimizer="adam", lr=3e-4),
]


def trainings(arch: Arch = CNN, dtype: torch.dtype = torch.float32, steps: int = STEPS) -> list[Fit]:
    """Return four trainings that differ in their weights, data, batches, optimizers, rates and schedules."""
    fits = []
    for place, training in enumerate(TRAININGS):
        data = domain(3, seed=place)
        fits.append(
            Fit(
                build(arch, 3, seed=place).to(dtype),
                Split(data.x.to(dtype), data.y),
                training.model_copy(update={"steps": steps, "batch_size": 12}),
                torch.Generator().manual_seed(place),
            )
        )
    return fits


def gap(one: nn.Module, other: nn.Module) -> float:
    """Return the largest difference between the states of two models."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_models_are_at_every_step_what_they_are_alone(dtype: torch.dtype, near: float) -> None:
    fits, alone = trainings(dtype=dtype), trainings(dtype=dtype)
    before = copy.deepcopy(fits[0].model)
    for step, *others in zip(fit_together(fits), *(fit.run() for fit in alone), strict=True):
        assert step == {}
        assert max(gap(a.model, b.model) for a, b in zip(fits, alone, strict=True)) < near
        assert [fit.model.training for fit in fits] == [True] * 4 and len(others) == 4
    assert gap(fits[0].model, before) > 0.1
    counts = [int(b) for name, b in fits[3].model.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts == [STEPS] * 3


def test_a_network_of_timm_too() -> None:
    fits, alone = trainings(TIMM[0], torch.float64, steps=3), trainings(TIMM[0], torch.float64, steps=3)
    list(fit_together(fits))
    for fit in alone:
        list(fit.run())
    assert max(gap(a.model, b.model) for a, b in zip(fits, alone, strict=True)) < 1e-10


def test_heads_groups_of_rates_and_masks_are_those_of_each_model() -> None:
    def chosen() -> list[Fit]:
        own, layered, masked, plain = trainings(dtype=torch.float64, steps=5)
        last = head(masked.model).weight

        def clear() -> None:
            last.data[0].zero_()

        groups = [{"params": [*layered.model.parameters()][:3], "lr": 1e-3}]
        return [
            replace(own, parameters=head(own.model).parameters()),
            replace(layered, parameters=groups),
            replace(masked, after_step=clear),
            plain,
        ]

    fits, alone = chosen(), chosen()
    list(fit_together(fits))
    for fit in alone:
        list(fit.run())
    assert max(gap(a.model, b.model) for a, b in zip(fits, alone, strict=True)) < 1e-10
    assert not head(fits[2].model).weight[0].any() and head(fits[3].model).weight[0].all()


class Partial(nn.Module):
    """Has a parameter that nothing uses, one that is frozen, and dropout."""

    def __init__(self, drop: float) -> None:
        super().__init__()
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.unused, self.used, self.drop = nn.Linear(5, 5), nn.Linear(5, 3), nn.Dropout(drop)

    def forward(self, x: Tensor) -> Any:
        return self.used(self.drop(self.frozen(x)))


def of_features(model: nn.Module, **changes: Any) -> Fit:
    data = Split(torch.randn(30, 5, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3)
    training = Training(optimizer="momentum", lr=0.1, weight_decay=0.1, steps=4, batch_size=10)
    return Fit(model, data, training.model_copy(update=changes), torch.Generator().manual_seed(0))


def test_weight_decay_reaches_only_what_gets_a_gradient() -> None:
    model = Partial(0.0)
    before, alone = copy.deepcopy(model), of_features(copy.deepcopy(model))
    list(fit_together([of_features(model), of_features(copy.deepcopy(model))]))
    list(alone.run())
    assert gap(model, alone.model) < 1e-6
    assert gap(model.unused, before.unused) == gap(model.frozen, before.frozen) == 0 < gap(model.used, before.used)


def test_dropout_differs_between_models_and_follows_the_global_seed() -> None:
    def found(seed: int) -> list[Tensor]:
        models = [copy.deepcopy(model) for _ in range(2)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            list(fit_together([of_features(each) for each in models]))
        return [each.used.weight.detach() for each in models]

    model = Partial(0.5)
    (a, b), (again, _), (other, _) = found(0), found(0), found(1)
    assert torch.equal(a, again) and not torch.equal(a, b) and not torch.equal(a, other)


def test_a_model_that_diverges_drops_out_and_the_others_finish() -> None:
    fits, alone = trainings(dtype=torch.float64), trainings(dtype=torch.float64)
    wild = [
        replace(each[1], training=each[1].training.model_copy(update={"lr": 1e9, "warmup": 0}))
        for each in (fits, alone)
    ]
    fits[1] = wild[0]
    failures = list(fit_together(fits))
    with pytest.raises(FloatingPointError) as told:
        list(wild[1].run())
    assert len(failures) == STEPS and failures[0] == {}
    assert failures[-1].keys() == {1}
    assert str(failures[-1][1]).partition(" at ")[2] == str(told.value).partition(" at ")[2] == "step 2"
    assert torch.tensor([p.isfinite().all() for p in wild[0].model.parameters()]).all()
    for place in (0, 2, 3):
        list(alone[place].run())
        assert gap(fits[place].model, alone[place].model) < 1e-10


def test_nothing_goes_on_when_all_have_diverged() -> None:
    fits = [replace(fit, training=Training(optimizer="sgd", lr=1e12, steps=9, batch_size=12)) for fit in trainings()]
    *_, last = failures = list(fit_together(fits))
    assert last.keys() == {0, 1, 2, 3} and len(failures) < 9


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda fit: replace(fit, model=build(CNN, 4, seed=0)), "architecture or class count"),
        (lambda fit: replace(fit, model=build(Arch(name="cnn_bn"), 3, seed=0)), "architecture or class count"),
        (lambda fit: replace(fit, training=fit.training.model_copy(update={"batch_size": 8})), "batch size"),
        (lambda fit: replace(fit, data=fit.data.subset(torch.arange(8))), "batch size"),
        (lambda fit: replace(fit, data=domain(3, seed=0, size=8)), "shape of a sample"),
        (lambda fit: replace(fit, training=fit.training.model_copy(update={"steps": 1})), "number of steps"),
        (lambda fit: replace(fit, loss=nn.functional.multi_margin_loss), "loss"),
        (lambda fit: replace(fit, model=copy.deepcopy(fit.model).requires_grad_(False)), "frozen parameters"),
    ],
)
def test_what_differs_too_much_is_named(other: Callable[[Fit], Fit], named: str) -> None:
    first = trainings()[0]
    with pytest.raises(ValueError, match=f"must not differ in their {named}$"):
        next(fit_together([first, other(first)]))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_rehearsal_counts_what_a_step_counts_and_computes_nothing(frozen: bool) -> None:
    fit = trainings(steps=1)[0]
    if frozen:
        fit.model.requires_grad_(False)
        head(fit.model).requires_grad_(True)
    before = copy.deepcopy(fit.model)
    step = rehearsed(fit)
    assert gap(fit.model, before) == 0
    with Meter() as meter:
        list(fit.run())
    assert (step.samples, step.flops) == (meter.samples, meter.flops) and meter.samples == 12
    assert step.learning == tuple(name for name, p in fit.model.named_parameters() if p.grad is not None)
    assert len(step.learning) == (2 if frozen else 11)


def test_which_attacks_are_one_training() -> None:
    found = {name: registry.get("attack", name)().is_one_fit for name in registry.names("attack")}
    assert found["finetune"] and found["longer"]
    # It inherits `fit_of`, but chooses other data in an `attack` of its own.
    assert not found["source_finetune"] and not found["lora"] and not found["tent"]
    ctx = context()
    model = ctx.fresh(3)
    attack = registry.get("attack", "finetune")(batch_size=8)
    fit = attack.fit_of(copy.deepcopy(model), ctx)
    assert fit.training.steps == ctx.budget.steps == len(list(fit.run()))
    *_, adapted = attack.attack(model, ctx)
    assert gap(fit.model, adapted) == 0


GRID: list[dict[str, Any]] = [
    {},
    {"optimizer": "adam", "lr": 3e-3, "schedule": "cosine", "warmup": 2},
    {"init": "whole"},
    {"layer_decay": 0.7, "augment": "weak"},
    {"steps": 3},
    {"optimizer": "sgd", "lr": 1e9},
    {"scope": "head"},
    {"scope": "head", "init": "reinit", "optimizer": "adam"},
    {"mask": "keep"},
    {"batch_size": 30},
]


@pytest.fixture
def many(tiny: Suite) -> list[Cell]:
    """Cells of which most can train together, some in groups of their own, and some only alone."""
    entries = [("finetune", params) for params in GRID] + [("longer", {"factor": 2}), ("source_finetune", {})]
    attacks = tuple(
        AttackEntry(name=name, label=f"{name} {place}", params={"batch_size": 8, **params})
        for place, (name, params) in enumerate(entries)
    )
    rows = [
        DefenseEntry(name="random_mask", label=f"mask {steps}", params={"tune_steps": steps, "tolerance": 1.0})
        for steps in (2, 3)
    ]
    changes = {"attacks": attacks, "paper": PaperSetting(attack=attacks[0].label)}
    return plan(tiny.model_copy(update=changes | {"defenses": (*tiny.defenses, *rows)}))


def assert_alike(found: list[Result], expected: list[Result], images: int = 2) -> None:
    assert [result.cell for result in found] == [result.cell for result in expected]
    for one, other in zip(found, expected, strict=True):
        assert (one.status, one.samples, one.choice) == (other.status, other.samples, other.choice)
        assert one.error.partition(" is ")[0] == other.error.partition(" is ")[0]
        assert one.protection or one.status == "inapplicable"
        a, b = one.trajectory, other.trajectory
        assert (a.step, a.samples, a.flops) == (b.step, b.samples, b.flops)
        assert torch.tensor([*a.val, *a.test]).numpy() == pytest.approx([*b.val, *b.test], abs=images / 200)
        assert list(a.seconds) == sorted(a.seconds) and all(second > 0 for second in a.seconds)


def test_cells_that_run_together_are_those_that_run_alone(
    runner: Runner, many: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def counting(lanes: list[Lane]) -> None:
        sizes.append(len(lanes))
        train_lanes(lanes)

    monkeypatch.setattr("ntbench.engine.runner.train_lanes", counting)
    runner.condemn(many[-1], "no luck")
    found = runner.run_together(many)
    assert_alike(found, [runner.run(cell) for cell in many])
    assert {result.status for result in found} == {"ok", "inapplicable", "diverged", "error"}
    assert {result.status for result in found if result.cell.defense.label == "mask 3"} == {"error"}
    # Apart from each other train: those with fewer steps, heads, and those with twice the budget.
    assert sorted(sizes) == [4, 4, 8, 22]


def test_mixed_precision_runs_alone(runner: Runner, tiny: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ntbench.engine.runner.prepared", None)
    cells = plan(tiny.model_copy(update={"precision": "bfloat16"}))
    assert_alike(runner.run_together(cells), [runner.run(cell) for cell in cells], images=0)
    assert len(list(_groups([Job("attack", cell) for cell in cells], 8))) == len(cells) == 2


def test_what_cannot_go_on_together_runs_alone(
    runner: Runner, cells: Callable[..., list[Cell]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(lanes: list[Lane]) -> None:
        raise RuntimeError("no rule for this layer")

    monkeypatch.setattr("ntbench.engine.runner.train_lanes", broken)
    with pytest.warns(UserWarning, match="2 cells cannot train together and run alone: RuntimeError: no rule"):
        found = runner.run_together(cells())
    assert_alike(found, [runner.run(cell) for cell in cells()], images=0)


def test_a_single_cell_is_run_as_ever(
    runner: Runner, cells: Callable[..., list[Cell]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ntbench.engine.runner.prepared", None)
    [result] = runner.run_together(cells()[:1])
    assert result.status == "ok"


def test_jobs_are_grouped_by_what_can_train_together(many: list[Cell]) -> None:
    jobs = [Job("protect", many[0]), *(Job("attack", cell) for cell in many)]
    assert list(_groups(jobs, 1)) == [[job] for job in jobs]
    groups = list(_groups(jobs, 5))
    assert sorted(job.key for group in groups for job in group) == sorted(job.key for job in jobs)
    assert groups[0] == jobs[:1] and max(map(len, groups)) == 5
    for group in groups:
        alike = {(job.cell.attack.name, job.cell.attack.params.get("scope")) for job in group}
        assert len(alike) == 1
        assert len(group) == 1 or alike.isdisjoint({("source_finetune", "all")})


PLUGIN = '''
"""A training that ends the process."""
import os
from ntbench.method import Attack, Fit, Training, register

def end():
    os._exit(1)

@register
class Deadly(Attack):
    """End the process at the first step."""
    name = "deadly"
    kill: bool

    def fit_of(self, model, ctx):
        training = Training(steps=ctx.budget.steps, batch_size=8)
        return Fit(model, ctx.target, training, ctx.generator("batches"), after_step=end if self.kill else lambda: None)
'''


def test_a_death_in_a_group_costs_the_guilty_cell_alone(
    tmp_path: Path, cache: Path, tiny: Suite, own_registry: Registry
) -> None:
    plugin = tmp_path / "deadly.py"
    plugin.write_text(PLUGIN)
    own_registry.load_plugin(str(plugin))
    entry = AttackEntry(name="deadly", label="{kill}", grid={"kill": [False, True]})
    planned = plan(tiny.model_copy(update={"attacks": (*tiny.attacks, entry)}))
    cells = [cell for cell in planned if cell.ratio == 1.0]
    settings = Settings(tmp_path / "run", cache, Limits(), jobs=2, together=8, plugins=own_registry.plugins)
    assert [len(group) for group in _groups([Job("attack", cell) for cell in cells], 8)] == [1, 2]
    found = {result.cell.attack.label: (result.status, result.error) for result in execute(cells, settings)}
    assert found == {"finetune": ("ok", ""), "False": ("ok", ""), "True": ("error", DIED)}


def test_the_command_gives_the_same_table(smoke: Path, tmp_path: Path, ntbench: Callable[..., Any]) -> None:
    done = ntbench("run", "smoke", "--jobs", 1, "--together", 4, "--seed", 0, "--out", tmp_path)
    assert done.returncode == 0 and not done.stderr, done.stderr
    alone, found = ([r for r in Store(folder).results() if r.cell.seed == 0] for folder in (smoke, tmp_path))
    assert_alike(found, alone)
    # The seconds tell what trained together: nothing else takes as long as its neighbour, to the nanosecond.
    spans = [[r.trajectory.seconds for r in results if r.status == "ok"] for results in (alone, found)]
    distinct = [len({round(seconds[-1] - seconds[0], 9) for seconds in each}) for each in spans]
    assert distinct[0] > len(spans[0]) / 2 > distinct[1]


def test_the_device_chooses() -> None:
    assert [at_once(device) for device in ("cpu", "cpu:0", "cuda", "cuda:1", "mps")] == [1, 1, 16, 16, 16]
