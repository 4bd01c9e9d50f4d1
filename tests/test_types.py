from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ntbench.types import Budget, Cell, Protection, Provenance, Result, Trajectory, digest

DECIDING = {
    "protocol": "tiny-2",
    "task.source": "syn",
    "task.target": "syn",
    "task.image_size": 16,
    "task.train_samples": 100,
    "task.scored_samples": 100,
    "arch.name": "cnn_bn",
    "arch.params": {"depth": 2},
    "pretrain.optimizer": "momentum",
    "pretrain.lr": 0.5,
    "pretrain.weight_decay": 0.1,
    "pretrain.schedule": "linear",
    "pretrain.warmup": 1,
    "pretrain.steps": 9,
    "pretrain.batch_size": 9,
    "budget.samples": 33,
    "budget.scored": [4],
    "defense.name": "ntl",
    "defense.version": 2,
    "defense.code": "f" * 16,
    "defense.params": {"steps": 1},
    "attack.name": "other",
    "attack.version": 2,
    "attack.code": "f" * 16,
    "attack.params": {"lr": 0.02, "mask": "dense"},
    "ratio": 0.3,
    "seed": 1,
    "precision": "bfloat16",
}
PRETRAINING = {"task.source", "task.image_size", "task.train_samples", "task.scored_samples", "seed", "precision"} | {
    key for key in DECIDING if key[:4] in ("arch", "pret")
}
PROTECTING = PRETRAINING | {key for key in DECIDING if key[:7] in ("defense", "budget.")} | {"task.target"}


def changed(cell: Cell, key: str, value: Any) -> Cell:
    content = cell.model_dump(mode="json")
    *path, last = key.split(".")
    place = content
    for part in path:
        place = place[part]
    assert place[last] != value
    place[last] = value
    return Cell.model_validate(content)


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


@pytest.mark.parametrize("key", ["defense.label", "attack.label"])
def test_labels_decide_nothing(cell: Cell, key: str) -> None:
    other = changed(cell, key, "another name")
    assert (other.key, other.protect_key) == (cell.key, cell.protect_key)
    assert other.coordinates != cell.coordinates


def test_every_field_of_a_cell_is_examined_here(cell: Cell) -> None:
    found = {
        f"{name}.{inner}" if isinstance(value, dict) else name
        for name, value in cell.model_dump(mode="json").items()
        for inner in (value if isinstance(value, dict) else [""])
    }
    fixed = {"defense.kind", "attack.kind", "defense.label", "attack.label", "budget.steps"}
    assert found - fixed == DECIDING.keys()


def test_mask_comes_from_the_attack(cell: Cell) -> None:
    assert cell.mask == "dense"
    assert changed(cell, "attack.params", {"mask": "keep"}).mask == "keep"
    assert changed(cell, "attack.params", {}).mask == "dense"


def test_recipes_are_frozen_and_refuse_unknown_fields(cell: Cell) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        cell.seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Cell.model_validate(cell.model_dump() | {"sead": 1})


@pytest.mark.parametrize("scored", [[], [0, 4], [2, 1, 4], [1, 1, 4], [1, 3], [1, 5]])
def test_scored_steps_rise_to_the_last_step(scored: list[int]) -> None:
    with pytest.raises(ValidationError, match=r"scored=.* must rise strictly"):
        Budget(steps=4, samples=32, scored=tuple(scored))


def test_trajectories_are_rectangular() -> None:
    with pytest.raises(ValidationError, match="differ in length"):
        Trajectory(step=(1, 2), samples=(8, 16), flops=(1, 2), seconds=(0.1, 0.2), val=(0.5, 0.5), test=(0.5,))


def test_results_survive_json_bit_for_bit(cell: Cell) -> None:
    thirds = Trajectory(
        step=(1, 4), samples=(8, 32), flops=(1, 10**15), seconds=(1 / 3, 0.2), val=(1 / 3, 1), test=(0, 1)
    )
    result = Result(
        cell=cell,
        status="diverged",
        error="the loss is nan at step 5\n✗",
        samples=240,
        protection=Protection(source_before=2 / 3, pretrain_flops=10**14),
        trajectory=thirds,
        provenance=Provenance(data={"digits/train": "ab"}, versions={"torch": "2"}, device="cpu"),
        seconds=1e-9,
    )
    again = Result.model_validate_json(result.model_dump_json())
    assert again == result
    assert again.cell.key == cell.key


def test_a_result_of_another_schema_is_refused(cell: Cell) -> None:
    with pytest.raises(ValidationError, match="schema_version"):
        Result.model_validate({"cell": cell, "status": "ok", "schema_version": 2})
