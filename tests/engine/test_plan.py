from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fabricated import in_t90
from safetensors.torch import save_file

from ntbench.engine.calibrate import GUESS, guessed
from ntbench.engine.manifest import read_manifest
from ntbench.engine.plan import manifest, plan, with_attacks, with_rows
from ntbench.errors import UserError
from ntbench.learn.models import build
from ntbench.suite import AttackEntry, DefenseEntry, Suite, load_suite
from ntbench.types import Budget, Cell, Epochs


def changed(suite: Suite, key: str, value: Any) -> Suite:
    content = suite.model_dump()
    *path, last = key.split(".")
    place: Any = content
    for part in path:
        place = place[int(part) if part.isdecimal() else part]
    place[last] = value
    return Suite.model_validate(content)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("defenses.0.name", "nona", "unknown defense 'nona'; did you mean 'none'?"),
        ("attacks.0.name", "finetun", "unknown attack 'finetun'; did you mean 'finetune'?"),
        ("defenses.0.params", {"step": 1}, "unknown hyper-parameter of defense 'none': 'step'; known: none"),
        ("attacks.0.params", {"optimiser": "adam"}, "attack 'finetune': 'optimiser'; did you mean 'optimizer'?"),
        ("attacks.0.params", {"optimizer": "adamm"}, "unknown optimizer 'adamm'; did you mean 'adam"),
        ("attacks.0.params", {"schedule": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'?"),
        ("attacks.0.params", {"lr": -1}, "attack 'finetune': lr = -1: Input should be greater than 0"),
        ("attacks.0.params", {"scope": "some"}, "attack 'finetune': scope = 'some': Input should be 'all' or 'head'"),
        ("arch.name", "cnn_bm", "arch: unknown architecture 'cnn_bm'; did you mean 'cnn_bn'?"),
        ("arch.params", {"widht": 3}, "arch: architecture 'cnns_bn' cannot be built with params={'widht': 3}"),
        ("pretrain.optimizer", "adamm", "pretrain.optimizer: unknown optimizer 'adamm'; did you mean 'adam"),
        ("pretrain.schedule", "cosin", "pretrain.schedule: unknown schedule 'cosin'; did you mean 'cosine'?"),
        ("tasks.0.source", "digit", "tasks: unknown domain 'digit'; did you mean 'digits'?"),
        ("tasks.0.defended", ["sin"], "tasks: unknown domain 'sin'; did you mean 'syn'?"),
        ("tasks.0.target", "digitsm", "tasks: unknown domain 'digitsm'; did you mean 'digits_m'?"),
    ],
)
def test_names_that_nothing_stands_for(tiny: Suite, key: str, value: Any, message: str) -> None:
    if key == "attacks.0.name":
        tiny = changed(tiny, "attacks.0.label", "finetune")
    with pytest.raises(UserError) as caught:
        plan(changed(tiny, key, value))
    assert message in str(caught.value)


def test_a_plan_is_the_product_of_seeds_tasks_defenses_attacks_and_counts(tiny: Suite) -> None:
    suite = changed(tiny, "seeds", [3, 1])
    suite = changed(suite, "tasks", [*tiny.tasks, tiny.tasks[0].model_copy(update={"target": "syn"})])
    cells = plan(suite)
    assert [(c.seed, c.task.target, c.samples) for c in cells] == [
        (seed, target, count) for seed in (3, 1) for target in ("digits_m", "syn") for count in (12, 48)
    ]
    assert all(c.protocol == "tiny-1" and c.arch == tiny.arch and c.source_share == 0.1 for c in cells)
    assert cells[0].attack.params["optimizer"] == "momentum", "defaults are written out"
    assert len({cell.key for cell in cells}) == len({cell.coordinates for cell in cells}) == len(cells)


def test_budgets_are_in_units_of_each_counts_t90(tiny: Suite) -> None:
    suite = changed(changed(tiny, "tasks.0.levels.1.t90", 6.0), "horizon", 16)
    few, many = plan(suite)
    assert (few.budget, many.budget) == (Budget(t90=0.5, horizon=16), Budget(t90=6, horizon=16))
    assert many.budget.ends == (1, 2, 3, 6, 12, 24, 48, 96)
    assert in_t90(plan(changed(tiny, "scored", 1.5))[0]).ratio == 1.5


def test_a_count_that_nobody_measured_is_refused_with_the_remedy(tiny: Suite) -> None:
    bare = changed(tiny, "tasks.0.levels.1.t90", None)
    with pytest.raises(UserError, match="digits-digits_m: nobody has measured T90 at 48 samples; `ntbench calibrate`"):
        plan(bare)
    assert [in_t90(cell).t90 for cell in plan(guessed(bare))] == [0.5, GUESS]


def test_attackers_who_choose_by_their_own_data_come_beside_the_others(tiny: Suite) -> None:
    cells = plan(tiny.model_copy(update={"own": True, "default": "finetune"}))
    assert [(c.samples, c.knowledge) for c in cells] == [(n, k) for n in (12, 48) for k in ("others", "own")]
    assert len({cell.protect_key for cell in cells}) == 1


def test_a_grid_of_a_defense_is_as_many_rows(tiny: Suite) -> None:
    entry = DefenseEntry(name="ntl", label="ntl-{alpha:g}", grid={"alpha": [0.1, 1.0]})
    cells = plan(tiny.model_copy(update={"defenses": (entry,)}))
    assert [(c.defense.label, c.defense.params["alpha"]) for c in cells[::2]] == [("ntl-0.1", 0.1), ("ntl-1", 1.0)]
    assert len({cell.protect_key for cell in cells}) == 2 and len({cell.pretrain_key for cell in cells}) == 1


def test_an_attack_faces_the_rows_that_it_is_set_against(tiny: Suite) -> None:
    keep = AttackEntry(name="finetune", label="keep", params={"mask": "keep"}, against=("magnitude",))
    rows = tuple(DefenseEntry(name=name) for name in ("none", "scratch", "magnitude"))
    cells = plan(tiny.model_copy(update={"attacks": (*tiny.attacks, keep), "defenses": rows}))
    assert {(c.defense.name, c.mask) for c in cells} == {
        ("none", "dense"),
        ("scratch", "dense"),
        ("scratch", "keep"),
        ("magnitude", "dense"),
        ("magnitude", "keep"),
    }


def test_chosen_rows_come_with_the_controls() -> None:
    suite = load_suite("smoke")

    def rows(*arguments: Any) -> list[str]:
        return [row for entry in with_rows(suite, *arguments).defenses for row in entry.rows]

    assert rows(()) == ["none", "scratch", "magnitude", "ntl"]
    assert rows(("ntl",)) == ["none", "scratch", "magnitude", "ntl"]
    assert rows(("sophon",)) == ["none", "scratch", "magnitude", "sophon"]
    assert rows((), ("sophon",)) == ["none", "scratch", "magnitude", "ntl", "sophon"]
    assert rows(("sophon",), ("sophon",)) == ["none", "scratch", "magnitude", "sophon"]
    with pytest.raises(UserError, match="unknown defense 'sophn'; did you mean 'sophon'"):
        rows(("sophn",))


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ((), ["slow 0.001", "slow 0.1", "lora"]),
        (("lora",), ["lora"]),
        (("slow 0.1",), ["slow 0.1"]),
        (("finetune",), ["slow 0.001", "slow 0.1"]),
        (("slow 0.1", "slow 0.001"), ["slow 0.001", "slow 0.1"]),
        (("redraw", "slow 0.1"), ["slow 0.1", "redraw"]),
    ],
)
def test_chosen_attacks_go_by_label_or_name_and_join_where_the_suite_lacks_them(
    tiny: Suite, chosen: tuple[str, ...], expected: list[str]
) -> None:
    grid = AttackEntry(name="finetune", label="slow {lr:g}", grid={"lr": [1e-3, 1e-1]}, against=("none",))
    suite = tiny.model_copy(update={"attacks": (grid, AttackEntry(name="lora"))})
    found = with_attacks(suite, chosen).attacks
    assert [label for entry in found for label, _ in entry.variants()] == expected
    assert all(entry.against == ("none",) for entry in found if entry.name == "finetune")
    assert with_attacks(suite, (), ("redraw",)).attacks == (*suite.attacks, AttackEntry(name="redraw"))


def test_a_chosen_attack_has_the_keys_that_it_has_in_the_whole_suite() -> None:
    suite = load_suite("quick")
    part = plan(with_attacks(suite, ("adam 0.01",)))
    assert {cell.attack.label for cell in part} == {"adam 0.01"}
    assert {cell.key for cell in part} < {cell.key for cell in plan(suite)}


def test_a_label_with_braces_can_be_chosen(tiny: Suite) -> None:
    grid = AttackEntry(name="finetune", label="{{x}} {lr:g}", grid={"lr": [1e-3, 1e-1]})
    found = with_attacks(tiny.model_copy(update={"attacks": (grid,)}), ("{x} 0.1",)).attacks
    assert [label for entry in found for label, _ in entry.variants()] == ["{x} 0.1"]


def test_what_falls_back_stays_where_attackers_go_by_their_own_data(tiny: Suite) -> None:
    suite = tiny.model_copy(update={"own": True, "default": "finetune"})
    assert [entry.name for entry in with_attacks(suite, ("lora",)).attacks] == ["finetune", "lora"]


def test_an_unknown_attack_is_refused(tiny: Suite) -> None:
    with pytest.raises(UserError, match="unknown attack 'finetun'; did you mean 'finetune'"):
        with_attacks(tiny, ("finetun",))


def test_a_part_of_a_suite_is_a_plan_that_can_be_read_again(tmp_path: Path) -> None:
    # Of quick, attacks are set against a row, and papers name an attack, that the part lacks.
    part = with_attacks(with_rows(load_suite("quick"), ("sophon",)), ("adam 0.01",))
    assert part.dangling
    manifest(part, "request", plan(part)).write(tmp_path)
    found = read_manifest(tmp_path)
    assert found is not None and found.suite == part


def test_a_manifest_names_every_cell_and_the_files_of_its_methods(tiny: Suite) -> None:
    cells = plan(tiny)
    found = manifest(tiny, "request", cells)
    assert found.asked == tuple(cell.key for cell in cells)
    assert set(found.cells.values()) == set(found.asked) and len(found.cells) == 2
    assert {Path(file).name for file in found.sources} == {
        "none.py",
        "finetune.py",
        "_tuning.py",
        "_views.py",
        "_layers.py",
    }
    assert found.answers("request") and not found.answers("another")


def test_a_plan_says_the_same_twice(tiny: Suite) -> None:
    first: list[Cell] = plan(tiny)
    assert [cell.key for cell in first] == [cell.key for cell in plan(tiny)]
    assert plan(changed(tiny, "limits.cell_seconds", 5)) == first, "limits decide no number"


def protocols(tiny: Suite, **more: Any) -> Suite:
    """The suite with a second attack, that of a paper: 5 passes in batches of 16."""
    ours = {"name": "finetune", "label": "as the paper", "params": {"batch_size": 16}, "protocol": {"epochs": 5}}
    task = tiny.tasks[0].model_dump() | more
    return Suite.model_validate(tiny.model_dump() | {"own": True, "default": "finetune", "tasks": [task]}).model_copy(
        update={"attacks": (*tiny.attacks, AttackEntry.model_validate(ours))}
    )


def test_the_budget_of_a_protocol_follows_the_samples_and_the_batch(tiny: Suite) -> None:
    cells = [cell for cell in plan(protocols(tiny)) if cell.attack.label == "as the paper"]
    # Nobody chooses by samples of its own in a paper's protocol.
    assert [(c.samples, c.knowledge, c.budget) for c in cells] == [
        (12, "others", Epochs(epochs=5, each=1)),
        (48, "others", Epochs(epochs=5, each=3)),
    ]


def test_protocols_alone_need_no_t90(tiny: Suite) -> None:
    suite = protocols(tiny, levels=[{"samples": 12}, {"samples": 48}])
    with pytest.raises(UserError, match="nobody has measured T90"):
        plan(suite)
    assert len(plan(suite.model_copy(update={"attacks": suite.attacks[1:]}))) == 2


def test_a_protocol_of_an_attack_without_batches_is_a_mistake(tiny: Suite) -> None:
    entry = AttackEntry.model_validate({"name": "auto", "protocol": {"epochs": 5}})
    with pytest.raises(UserError, match="attack 'auto': protocol: auto has no batches to count passes by; remove it"):
        plan(tiny.model_copy(update={"attacks": (entry,)}))


def test_another_file_of_starting_weights_is_another_recipe(tiny: Suite, tmp_path: Path) -> None:
    file = tmp_path / "start.safetensors"
    of = changed(tiny, "pretrain.weights", str(file))
    with pytest.raises(UserError, match=r"pretrain.weights: '.*start.safetensors' is not there"):
        plan(of)
    keys = []
    for seed in (0, 1):
        save_file({n: t.contiguous() for n, t in build(of.arch, 10, seed).state_dict().items()}, file)
        keys.append(plan(of)[0].pretrain_key)
    assert keys[0] != keys[1]
