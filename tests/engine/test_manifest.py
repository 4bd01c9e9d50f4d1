from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from fabricated import ATTACKS, COUNTS, SEEDS, result

from ntbench.engine.manifest import Manifest, fingerprints, read_manifest
from ntbench.errors import UserError
from ntbench.suite import AttackEntry, DefenseEntry, Suite
from ntbench.types import ObjectiveSpec, Result, columns_of


def made(suite: Suite, request: str = "r", **cells: str) -> Manifest:
    return Manifest(suite=suite, request=request, sources={}, cells=cells, asked=tuple(cells.values()))


def test_a_plan_comes_back_as_it_was(tmp_path: Path, tiny: Suite) -> None:
    assert read_manifest(tmp_path) is None
    plan = made(tiny, a="1", b="2")
    plan.write(tmp_path)
    assert read_manifest(tmp_path) == plan
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]


def test_it_answers_its_own_request_while_the_files_stay(tmp_path: Path, tiny: Suite) -> None:
    file = tmp_path / "method.py"
    file.write_text("a")
    plan = made(tiny).model_copy(update={"sources": fingerprints([str(file)])})
    assert plan.answers("r") and not plan.answers("s")
    file.write_text("b")
    assert not plan.answers("r")
    file.unlink()
    assert not plan.answers("r")
    assert fingerprints([str(file)]) == {str(file): ""}


def rows(suite: Suite, *names: str) -> Suite:
    return suite.model_copy(update={"defenses": tuple(DefenseEntry(name=name) for name in names)})


def test_rows_of_an_earlier_plan_of_the_same_grid_stay(tiny: Suite) -> None:
    earlier = made(rows(tiny, "none", "ntl"), x="1", y="2")
    later = made(rows(tiny, "sophon", "none"), y="3", z="4")
    both = later.after(earlier)
    assert [row for entry in both.suite.defenses for row in entry.rows] == ["sophon", "none", "ntl"]
    assert both.cells == {"x": "1", "y": "3", "z": "4"}
    assert both.asked == ("3", "4")


def test_attacks_that_are_asked_for_later_join_an_earlier_plan(tiny: Suite) -> None:
    slow, fast = (AttackEntry(name="finetune", label=f"sgd {lr:g}", params={"lr": lr}) for lr in (0.01, 0.1))
    grid = AttackEntry(name="finetune", label="sgd {lr:g}", grid={"lr": [0.01, 0.1]})
    other = slow.model_copy(update={"params": {"lr": 0.02}})

    def joined(earlier: tuple[AttackEntry, ...], later: tuple[AttackEntry, ...]) -> tuple[AttackEntry, ...]:
        suites = [tiny.model_copy(update={"attacks": attacks}) for attacks in (earlier, later)]
        return made(suites[1], y="2").after(made(suites[0], x="1")).suite.attacks

    assert joined((grid,), (fast,)) == (grid,), "a part of the grid changes nothing"
    assert joined((fast,), (grid,)) == (grid,), "the whole grid has the suite's order"
    assert joined((slow,), (fast,)) == (slow, fast)
    assert joined((grid,), (other,)) == (other,), "one label of two recipes is another grid"


def test_a_plan_grows_in_seeds_and_tasks_too(tiny: Suite) -> None:
    (task,) = tiny.tasks
    other = task.model_copy(update={"target": "syn"})
    earlier = made(tiny.model_copy(update={"seeds": (0, 2), "tasks": (task, other)}), x="1")
    both = made(tiny.model_copy(update={"seeds": (1,)}), y="2").after(earlier)
    assert (both.suite.seeds, both.suite.tasks) == ((0, 1, 2), (task, other))
    assert both.cells == {"x": "1", "y": "2"} and both.asked == ("2",)


@pytest.mark.parametrize(
    "change", [{"horizon": 4.0}, {"source_share": 0.2}, {"precision": "bfloat16"}, {"name": "other"}, {"version": 9}]
)
def test_a_plan_of_another_grid_replaces_the_earlier_one(tiny: Suite, change: dict[str, object]) -> None:
    other = made(tiny.model_copy(update=change), y="3")
    assert other.after(made(tiny, x="1")) == other
    assert other.after(None) == other


def placed(defense: str, attack: str, samples: int, seed: int) -> str:
    return json.dumps(["a-b", defense, attack, "dense", samples, seed, "others"])


def test_results_have_the_labels_of_the_plan(tiny: Suite) -> None:
    given = columns_of(result(*place, 0.5) for place in product(("none", "ntp"), ATTACKS, COUNTS, SEEDS))
    told = {"ntp": "my | row", "weak": "adam, 0.01"}

    def place(one: Result) -> str:
        defense, attack = one.cell.defense.label, one.cell.attack.label
        return placed(told.get(defense, defense), told.get(attack, attack), one.cell.samples, one.cell.seed)

    cells = {place(one): one.cell.key for one in given if (one.cell.attack.label, one.cell.seed) != ("strong", 3)}
    found = made(tiny, **cells, **{placed("ntp", "lost", 10, 0): "no such key"}).labelled(given)
    assert [one.cell.key for one in found] == [key for key in given.keys.tolist() if key in cells.values()]
    assert {place(one): one.cell.key for one in found} == cells
    assert {one.cell.defense.label for one in found} == {"none", "my | row"}
    assert {one.cell.attack.label for one in found} == {"adam, 0.01", "strong", "other"}


def test_a_recipe_of_two_places_has_the_labels_of_the_last(tiny: Suite) -> None:
    given = columns_of([result("none", "weak", 10, 0, 0.5)])
    (key,) = given.keys.tolist()
    places = [placed("none", label, 10, 0) for label in ("weak", "twice", "zz", "again")]
    (found,) = made(tiny, **dict.fromkeys(places, key)).labelled(given)
    assert found.cell.attack.label == "again"


def test_nothing_belongs_to_a_plan_without_cells(tiny: Suite) -> None:
    assert len(made(tiny).labelled(columns_of([result("none", "weak", 10, 0, 0.5)]))) == 0


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"suite": 1}', '{"torn": '])
def test_a_damaged_plan_is_told_with_its_remedy(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest.json.* is damaged .*; delete it and run again"):
        read_manifest(tmp_path)


def test_a_full_disk_keeps_the_earlier_plan(tmp_path: Path, tiny: Suite) -> None:
    plan = made(tiny, a="1")
    plan.write(tmp_path)
    code = """
import resource, sys
from pathlib import Path
from ntbench.errors import UserError
from ntbench.engine.manifest import read_manifest
held = read_manifest(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    held.model_copy(update={"request": "s"}).write(Path(sys.argv[1]))
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert "cannot be written" in done.stdout and "free space" in done.stdout, done.stderr
    assert read_manifest(tmp_path) == plan


def test_what_is_measured_of_a_further_domain_joins_an_earlier_plan(tiny: Suite) -> None:
    def knowing(**reference: float) -> Suite:
        spec = ObjectiveSpec(name="denoising", params={"reference": reference})
        return tiny.model_copy(update={"objective": spec})

    earlier = made(knowing(a=0.1, b=0.2), x="1")
    both = made(knowing(b=0.2, c=0.3), y="2").after(earlier)
    assert both.suite == knowing(a=0.1, b=0.2, c=0.3) and both.cells == {"x": "1", "y": "2"}
    other = made(knowing(b=0.3), y="2")
    assert other.after(earlier) == other
