from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ntbench.types import (
    Budget,
    Cell,
    Epochs,
    Level,
    MethodSpec,
    Protection,
    Provenance,
    Rehearsal,
    Result,
    Task,
    Trajectory,
    Tuning,
    digest,
    domain_label,
    pack_bits,
    unpack_bits,
)

DECIDING = {
    "protocol": "tiny-2",
    "task.source": "syn",
    "task.target": "syn",
    "task.image_size": 16,
    "task.train_samples": 100,
    "task.scored_samples": 100,
    "task.defended": ["syn"],
    "task.defender_share": 0.4,
    "task.shared": True,
    "arch.name": "cnn_bn",
    "arch.params": {"depth": 2},
    "pretrain.optimizer": "momentum",
    "pretrain.lr": 0.5,
    "pretrain.weight_decay": 0.1,
    "pretrain.schedule": "linear",
    "pretrain.warmup": 1,
    "pretrain.steps": 9,
    "pretrain.batch_size": 9,
    "pretrain.weights": "timm",
    "budget.t90": 3.0,
    "budget.horizon": 16.0,
    "budget.ratio": 1.5,
    "defense.name": "ntl",
    "defense.version": 2,
    "defense.code": "f" * 16,
    "defense.params": {"steps": 1},
    "attack.name": "other",
    "attack.version": 2,
    "attack.code": "f" * 16,
    "attack.params": {"lr": 0.02, "mask": "dense"},
    "samples": 13,
    "seed": 1,
    "source_share": 0.2,
    "knowledge": "own",
    "precision": "bfloat16",
}
PRETRAINING = {"task.source", "task.image_size", "task.train_samples", "task.scored_samples", "seed", "precision"} | {
    key for key in DECIDING if key[:4] in ("arch", "pret")
}
PROTECTING = PRETRAINING | {key for key in DECIDING if key[:7] == "defense" or key[:4] == "task"}
COUNTED: list[tuple[Budget, tuple[int, ...]]] = [
    (Budget(t90=10), (1, 2, 5, 10, 20, 40, 80)),
    (Budget(t90=16, horizon=4), (2, 4, 8, 16, 32, 64)),
    (Budget(t90=0.5), (1, 2, 4)),
    (Budget(t90=1, horizon=1), (1,)),
    (Budget(t90=100, horizon=0.1), (10,)),
]


def changed(cell: Cell, key: str, value: Any) -> Cell:
    content = cell.model_dump(mode="json")
    *path, last = key.split(".")
    place = content
    for part in path:
        place = place[part]
    assert place[last] != value
    place[last] = value
    return Cell.model_validate(content)


def task(source: str = "digits", target: str = "syn", counts: tuple[int, ...] = (12, 48), **more: Any) -> Task:
    return Task(source=source, target=target, levels=tuple(Level(samples=n) for n in counts), **more)


def test_digest_ignores_the_order_of_keys_and_nothing_else() -> None:
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    values: list[Any] = [{"a": 1}, {"a": 2}, {"b": 1}, [1, 2], [2, 1], 1, 1.5, "1", None, True]
    assert len({digest(value) for value in values}) == len(values)
    assert len(digest({})) == 16 and int(digest({}), 16) >= 0


def test_digest_refuses_what_json_cannot_say() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        digest(float("nan"))


@pytest.mark.parametrize("key", DECIDING)
def test_keys_change_with_what_decides_them_and_with_nothing_else(cell: Cell, key: str) -> None:
    other = changed(cell, key, DECIDING[key])
    assert other.key != cell.key
    assert (other.protect_key != cell.protect_key) == (key in PROTECTING)
    assert (other.pretrain_key != cell.pretrain_key) == (key in PRETRAINING)


@pytest.mark.parametrize("key", ["defense.label", "attack.label", "task.label"])
def test_labels_decide_nothing(cell: Cell, key: str) -> None:
    other = changed(cell, key, "another name")
    assert (other.key, other.protect_key) == (cell.key, cell.protect_key)
    assert other.coordinates != cell.coordinates


@pytest.mark.parametrize(
    "levels",
    [
        [{"samples": 12, "t90": 99.0, "plateau": 0.9}, {"samples": 48}],
        [{"samples": 12}, {"samples": 24}, {"samples": 400}],
    ],
)
def test_what_other_counts_a_task_has_decides_nothing_of_a_cell(cell: Cell, levels: list[dict[str, Any]]) -> None:
    other = changed(cell, "task.levels", levels)
    assert (other.key, other.protect_key, other.coordinates) == (cell.key, cell.protect_key, cell.coordinates)


def test_every_field_of_a_cell_is_examined_here(cell: Cell) -> None:
    found = {
        f"{name}.{inner}" if isinstance(value, dict) else name
        for name, value in cell.model_dump(mode="json").items()
        for inner in (value if isinstance(value, dict) else [""])
    }
    fixed = {"defense.kind", "attack.kind", "defense.label", "attack.label", "task.label", "task.levels"}
    assert found - fixed == DECIDING.keys()


def test_keys_and_content_are_those_of_before_rehearsals_and_tuning(cell: Cell) -> None:
    # Written down from the version that knew neither.
    assert (cell.pretrain_key, cell.protect_key, cell.key) == (
        "bd9eebbd70142190",
        "5d51d60b59d48a2d",
        "c8c614c1eb764936",
    )
    assert digest(cell.model_dump(mode="json")) == "4b9f3355e0b7e80e"


def test_the_precision_of_scores_is_part_of_a_result_and_of_no_release(cell: Cell) -> None:
    low = cell.model_copy(update={"scoring": "bfloat16"})
    assert low.key != cell.key and low.protect_key == cell.protect_key
    assert Cell.model_validate_json(low.model_dump_json()) == low
    assert "scoring" not in cell.model_dump()


def test_a_rehearsal_has_a_model_and_releases_of_its_own(cell: Cell) -> None:
    kinds: list[Rehearsal | None] = [None, "target", "source"]
    played = [
        Cell.model_validate(
            {**cell.model_dump(), "task": cell.task.model_copy(update={"rehearsal": kind}).model_dump()}
        )
        for kind in kinds
    ]
    assert len({other.protect_key for other in played}) == len({other.key for other in played}) == 3
    assert len({other.pretrain_key for other in played}) == 2, "a fifth of the source is put aside in both"


def test_how_a_defense_was_tuned_is_part_of_its_recipe(cell: Cell) -> None:
    tuning = Tuning(trials=3, names=("lr",), steps=120, flops=10**9, leak=0.1, drop=0.01, kept={"lr": 0.1})
    spec = cell.defense.model_copy(update={"tuning": tuning})
    assert spec.recipe() == cell.defense.recipe() | {"tuning": tuning.model_dump(mode="json")}
    assert MethodSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize("key", ["samples", "seed", "knowledge", "defense.label", "attack.label", "task.target"])
def test_coordinates_tell_cells_of_one_grid_apart(cell: Cell, key: str) -> None:
    assert changed(cell, key, DECIDING.get(key, "another")).coordinates != cell.coordinates


def test_mask_comes_from_the_attack(cell: Cell) -> None:
    assert cell.mask == "dense"
    assert changed(cell, "attack.params", {"mask": "keep"}).mask == "keep"
    assert changed(cell, "attack.params", {}).mask == "dense"


def test_recipes_are_frozen_and_refuse_unknown_fields(cell: Cell) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        cell.seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Cell.model_validate(cell.model_dump() | {"sead": 1})


@pytest.mark.parametrize(("budget", "ends"), COUNTED)
def test_budgets_are_powers_of_the_ratio_down_to_an_eighth_of_t90(budget: Budget, ends: tuple[int, ...]) -> None:
    assert budget.ends == ends


@given(t90=st.floats(1e-3, 1e4), horizon=st.floats(0.01, 1024), ratio=st.floats(1.05, 2))
def test_budgets_rise_to_the_horizon_and_begin_near_an_eighth_of_t90(t90: float, horizon: float, ratio: float) -> None:
    budget = Budget(t90=t90, horizon=horizon, ratio=ratio)
    ends = budget.ends
    assert ends[-1] == budget.steps == max(1, round(horizon * t90))
    assert all(a < b for a, b in pairwise(ends)) and ends[0] >= 1
    # Rounded to whole steps, neighbours are a ratio apart and the first lies within one ratio above T90 / 8.
    assert all(b <= ratio * (a + 0.5) + 0.5 for a, b in pairwise(ends))
    if horizon > 1 / 8:
        assert ends[0] <= max(1, round(ratio * t90 / 8)) and ends[0] >= math.floor(t90 / 8)


@given(t90=st.floats(1, 1e4), horizon=st.sampled_from([1, 2, 4, 8, 16]))
def test_a_longer_horizon_of_whole_octaves_keeps_all_smaller_budgets(t90: float, horizon: int) -> None:
    short, long = Budget(t90=t90, horizon=horizon), Budget(t90=t90, horizon=2 * horizon)
    assert long.ends[:-1] == short.ends


def test_a_task_is_named_for_people_and_for_files() -> None:
    plain = task()
    assert (plain.title, plain.name) == ("digits to syn", "digits-syn")
    path = task("folder:/home/somebody/my photos", "folder:/data/über cats/")
    assert (path.title, path.name) == ("my photos to über cats", "my_photos-_ber_cats")
    told = task(label="photos, at 32 pixels")
    assert (told.title, told.name) == ("photos, at 32 pixels", "photos_at_32_pixels")


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1, max_size=4))
def test_no_path_of_a_machine_is_part_of_a_name(parts: list[str]) -> None:
    path = "folder:/" + "/".join(parts)
    found = task(path)
    assert "/" not in domain_label(path) and "/" not in found.name and "/" not in found.title
    assert set(found.name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")


def test_the_defender_is_given_the_target_unless_told_otherwise() -> None:
    assert task().guarded == ("syn",)
    assert task(defended=("digits_m", "syn")).guarded == ("digits_m", "syn")
    assert task(defended=()).guarded == ()


@pytest.mark.parametrize("counts", [(12, 12), (48, 12), (12, 48, 24)])
def test_sample_counts_rise(counts: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match=r"levels: the samples \[.*\] must rise strictly"):
        task(counts=counts)


@pytest.mark.parametrize("counts", [(), (12,), (0, 12)])
def test_two_counts_are_the_least(counts: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match=r"at least 2 items|greater than or equal to 1"):
        task(counts=counts)


@given(st.lists(st.booleans(), max_size=70))
def test_bits_come_back_as_they_were(right: list[bool]) -> None:
    packed = pack_bits(np.array(right, dtype=bool))
    assert unpack_bits(packed, len(right)).tolist() == right
    assert len(packed) == 4 * math.ceil(math.ceil(len(right) / 8) / 3)


def test_bits_are_packed_from_the_highest_of_every_byte() -> None:
    assert pack_bits(np.array([True] + [False] * 7 + [True, True])) == "gMA="


def test_trajectories_are_rectangular() -> None:
    with pytest.raises(ValidationError, match="differ in length"):
        Trajectory(step=(1, 2), samples=(8, 16), flops=(1, 2), seconds=(0.1, 0.2), val=(0.5, 0.5), test=(0.5,))


def test_results_survive_json_bit_for_bit(cell: Cell) -> None:
    thirds = Trajectory(
        step=(1, 4),
        samples=(8, 32),
        flops=(1, 10**15),
        seconds=(1 / 3, 0.2),
        val=(1 / 3, 1),
        test=(0, 1),
        correct=("gMA=", ""),
        own=(None, 1 / 3),
    )
    result = Result(
        cell=cell,
        status="diverged",
        error="the loss is nan at step 5\n✗",
        track="unlabelled",
        images=10,
        originals=5,
        source_images=3,
        paid=7,
        protection=Protection(source_before=2 / 3, pretrain_flops=10**14, clean="gMA="),
        trajectory=thirds,
        provenance=Provenance(data={"digits/train": "ab"}, versions={"torch": "2"}, device="cpu"),
        seconds=1e-9,
    )
    again = Result.model_validate_json(result.model_dump_json())
    assert again == result
    assert again.cell.key == cell.key


def test_a_result_of_another_schema_is_refused(cell: Cell) -> None:
    with pytest.raises(ValidationError, match="schema_version"):
        Result.model_validate({"cell": cell, "status": "ok", "schema_version": 1})


@pytest.mark.parametrize(
    ("samples", "batch_size", "epochs", "steps"),
    [(128, 32, 5, 20), (129, 32, 5, 25), (7, 128, 30, 30), (1, 1, 1, 1), (6562, 128, 30, 1560)],
)
def test_a_budget_in_epochs_is_so_many_passes_of_whole_batches(
    samples: int, batch_size: int, epochs: int, steps: int
) -> None:
    each = steps // epochs
    last = Epochs.of(samples, batch_size, epochs=epochs)
    assert (last.steps, last.ends) == (steps, (steps,))
    best = Epochs.of(samples, batch_size, epochs=epochs, select="best val")
    assert best.steps == steps and best.ends == tuple(each * k for k in range(1, epochs + 1))


def scored(test: list[float], val: list[float] | None = None) -> Trajectory:
    n = len(test)
    whole, seconds = tuple(range(1, n + 1)), (0.0,) * n
    columns = {"samples": whole, "flops": whole, "seconds": seconds, "correct": ("",) * n, "own": (None,) * n}
    return Trajectory(step=whole, val=tuple(val or test), test=tuple(test), **columns)


@pytest.mark.parametrize(("select", "place"), [("last", 3), ("best test", 1), ("best val", 2)])
def test_a_protocol_reports_the_pass_that_it_names_and_the_first_of_equals(select: Any, place: int) -> None:
    run = scored([0.1, 0.5, 0.5, 0.2], [0.1, 0.2, 0.6, 0.6])
    rules = Epochs(epochs=9, each=2, select=select)
    assert rules.chosen(run) == place and rules.chosen(Trajectory()) is None


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(0, 6))
def test_patience_ends_a_run_so_many_passes_after_its_best(scores: list[int], patience: int) -> None:
    rules = Epochs(epochs=30, each=1, select="best test", patience=patience)
    ends = [k for k in range(1, len(scores) + 1) if rules.over(scored([s / 10 for s in scores[:k]]))]
    since, first = 0, None
    for k, score in enumerate(scores, 1):
        since = 0 if k == 1 or score > max(scores[: k - 1]) else since + 1
        if patience and since == patience and first is None:
            first = k
    assert (ends[0] if ends else None) == first


@pytest.mark.parametrize("rule", [{"epochs": 31}, {"each": 3}, {"select": "best val"}, {"patience": 2}])
def test_a_budget_in_epochs_decides_the_key_of_the_run_and_not_of_the_release(cell: Cell, rule: dict[str, Any]) -> None:
    rules = {"epochs": 30, "each": 2, "select": "best test", "patience": 0}
    one, other = (cell.model_copy(update={"budget": Epochs.model_validate(r)}) for r in (rules, rules | rule))
    assert len({cell.key, one.key, other.key}) == 3
    assert cell.protect_key == one.protect_key == other.protect_key
    assert Cell.model_validate_json(one.model_dump_json()) == one
