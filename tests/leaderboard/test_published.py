"""What a published file holds, and that its rows can be recomputed from its cells whatever the attacks were."""

import json
from pathlib import Path
from typing import Any

import pytest
from fabricated import RATIOS, SEEDS, SPAN, STEPS, additive, grid, outcome, recipe, refused, suite, trajectory
from ntbench.leaderboard.schema import publish, validate

from ntbench.errors import UserError
from ntbench.types import Result


def level(row: str, attack: str, ratio: float, seed: int) -> float:
    """The gaps of `additive`, with accuracies that are none below 0."""
    return 0.12 + additive(row, attack, ratio, seed)


def file(folder: Path, defense: str) -> Any:
    return json.loads((folder / "tiny" / defense / "a-b.json").read_bytes())


def test_cells_hold_the_chosen_step_and_the_last(tmp_path: Path) -> None:
    peak = trajectory((0.1, 0.2, 0.9, 0.8, 0.7, 0.6), shift=-0.05)
    publish([r.model_copy(update={"trajectory": peak}) for r in grid(level)], suite(), tmp_path)
    assert {tuple(cell[5:8]) for cell in file(tmp_path, "ntp")["cells"]} == {(0.9 - 0.05, 0.9, 0.6)}
    assert validate(tmp_path) == []


def test_what_is_not_applicable_is_not_published(tmp_path: Path) -> None:
    whole, places = list(grid(level)), [tmp_path / "plain", tmp_path / "stated"]
    absent = map(refused, grid(lambda *_: 0.5, (("sophon", "keep"),)))
    for place, results in zip(places, (whole, [*whole, *absent]), strict=True):
        publish(results, suite(), place)
    for path in places[0].rglob("*.json"):
        assert path.read_bytes() == (places[1] / path.relative_to(places[0])).read_bytes()
    with pytest.raises(UserError, match="no results of tiny-1"):
        publish(map(refused, whole), suite(), tmp_path)


def test_attacks_that_cannot_face_one_defense_make_no_row_thin(tmp_path: Path) -> None:
    places = [("sophon", "strong"), ("sophon", "other")]
    fewer = [refused(r) if r.cell.coordinates[1:3] in places else r for r in grid(level)]
    publish(fewer, suite(), tmp_path)
    assert validate(tmp_path) == []
    found = file(tmp_path, "sophon")
    (row,) = found["rows"]
    assert (row["thin"], row["cells"], row["note"], len(found["attacks"])) == (False, 9, "", 1)


def searched() -> list[Result]:
    """Return all cells in bfloat16, with a search of four budgets that gains 0.3 over `strong` on `sophon`."""
    found = list(grid(level))
    for r in grid(level, (("scratch", "dense"), ("sophon", "dense"))):
        _, defense, attack, _, ratio, seed = r.cell.coordinates
        if attack == "strong":
            path = tuple(value + 0.3 * (defense == "sophon") for value in r.trajectory.test)
            run = trajectory(path, steps=tuple(4 * step for step in STEPS))
            cell = recipe(defense, "auto", ratio, seed)
            found.append(r.model_copy(update={"cell": cell, "trajectory": run, "choice": "adam, lr 0.1"}))
    # Validated anew, as a copy would keep the key.
    plain = [r.model_dump() for r in found]
    return [Result.model_validate(r | {"cell": r["cell"] | {"precision": "bfloat16"}}) for r in plain]


def test_the_automatic_attack_is_published_beside_the_grid(tmp_path: Path) -> None:
    attacks = [*suite().model_dump()["attacks"], {"name": "auto", "against": ["scratch", "sophon"]}]
    publish(searched(), suite(attacks=attacks, precision="bfloat16"), tmp_path)
    assert validate(tmp_path) == []
    found = file(tmp_path, "sophon")
    (row,) = found["rows"]
    metrics = row["metrics"]
    assert (row["selection"], row["needs"], found["precision"]) == ("val", "source labels", "bfloat16")
    assert (row["grid_attack"], row["auto_choice"], row["worst_attack"]) == ("strong", "adam, lr 0.1", "auto")
    slc = [metrics[name] for name in ("grid_slc", "auto_slc", "slc")]
    assert slc == pytest.approx([-0.1 * SPAN, 0.2 * SPAN, 0.2 * SPAN], abs=1e-5)
    assert (metrics["grid_steps"], metrics["auto_steps"], metrics["worst_steps"]) == (720, 960, 960)
    none = file(tmp_path, "none")["rows"][0]
    assert (none["metrics"]["auto_slc"], none["auto_choice"], none["note"], none["thin"]) == (None, "", "", False)
    metrics.update(auto_slc=0.0, auto_slc_low=0.0, auto_slc_high=0.0)
    (tmp_path / "tiny/sophon/a-b.json").write_text(json.dumps(found), encoding="utf-8")
    assert any("rows.dense.auto_slc = 0.0" in line for line in validate(tmp_path))


def test_the_first_of_equal_attacks_is_the_suites_though_no_file_holds_them_all(tmp_path: Path) -> None:
    facing = {"scratch": "abde", "sophon": "acd"}
    cells = [
        outcome(recipe(defense, name, ratio, seed), (*(0.1,) * 5, 0.1 if name == "a" else 0.5))
        for defense, names in facing.items()
        for name in names
        for ratio in RATIOS
        for seed in SEEDS
    ]
    against: dict[str, Any] = {"b": {"against": ["scratch"]}, "c": {"against": ["sophon"]}}
    attacks = [{"name": "finetune", "label": name, **against.get(name, {})} for name in "abcde"]
    defenses = [{"name": name} for name in facing]
    publish(cells, suite(defenses=defenses, attacks=attacks, paper={"attack": "a"}), tmp_path)
    assert validate(tmp_path) == []
    assert file(tmp_path, "sophon")["rows"][0]["worst_attack"] == "c"
