"""Published numbers beside ours, from runs that nobody computed."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from fabricated import TASK, outcome, recipe, suite, trajectory
from ntbench.leaderboard.claims import Claim, known_claims, page, render
from ntbench.leaderboard.reproductions import publish, read_all

from ntbench.errors import UserError
from ntbench.measure.reproduced import Reproduction
from ntbench.suite import Suite, load_suite, suite_names
from ntbench.types import Arch, Epochs, Result

ROOT = Path(__file__).parents[2]
LAST = {"none": 0.7, "scratch": 0.5, "ntp": 0.3, "ntp-tuned": 0.45}
KNOWN: dict[str, Any] = {
    "paper": "NTP",
    "suite": "tiny",
    "task": "a-b",
    "row": "ntp",
    "quantity": "slc",
    "published": -0.8,
    "span": 4.0,
    "arch": "cnn",
    "data": ("a", "b"),
    "setting": "as told",
}


def tiny(**changes: Any) -> Suite:
    rows = [{"name": "none"}, {"name": "scratch"}, {"name": "ntp"}, {"name": "ntp", "label": "ntp-tuned"}]
    attack = {"name": "finetune", "label": "theirs", "protocol": {"epochs": 3}}
    return suite(**{"attacks": [attack], "defenses": rows, "paper": {"attack": "theirs"}, "default": ""} | changes)


def results(
    rows: tuple[str, ...] = tuple(LAST), seeds: tuple[int, ...] = (0, 1), attack: str = "theirs", gain: float = 0.0
) -> list[Result]:
    budget = Epochs(epochs=3, each=2)
    return [
        outcome(recipe(row, attack, n, seed, budget=budget), trajectory([LAST[row] + gain], ends=budget.ends))
        for row in rows
        for n in (10, 100, 1000)
        for seed in seeds
    ]


def found(**changes: Any) -> dict[str, Reproduction]:
    return {"tiny": Reproduction.of(results(), tiny(**changes))}


def claim(**changes: Any) -> Claim:
    return Claim.model_validate(KNOWN | changes)


def table(text: str, heading: str) -> list[list[str]]:
    part = text[text.index(heading) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in part]


def test_an_area_stands_beside_ours_and_its_distance_over_the_log_ranges() -> None:
    (line,) = table(page([claim()], found()), "| Paper | Task | Row |")
    area = -0.2 * math.log(100)
    assert line[4:9] == ["-0.80 (-20.0)", f"{area:+.2f} (-20.0)", "0.0", "2", "reproduced"]
    (line,) = table(page([claim(published=0.4)], found()), "| Paper | Task | Row |")
    assert line[6] == "-30.0"


def test_accuracies_are_in_percent_and_their_distance_in_points() -> None:
    (line,) = table(page([claim(quantity="accuracy", published=0.152, span=1.0)], found()), "| Paper | Task | Row |")
    assert line[3:7] == ["target accuracy after the attack", "15.2", "30.0", "+14.8"]


def test_what_has_not_run_has_no_number() -> None:
    for missing in (claim(suite="other"), claim(row="sophon")):
        (line,) = table(page([missing], found()), "| Paper | Task | Row |")
        assert line[5:9] == ["-", "-", "-", "not run"]


@pytest.mark.parametrize(
    ("known", "changes"),
    [
        ({"arch": "vgg11"}, {}),
        ({}, {"arch": Arch(name="cnn", params={"width": 8})}),
        ({"data": ("a", "c")}, {}),
        ({}, {"tasks": [TASK.model_copy(update={"train_samples": 500})]}),
    ],
)
def test_only_the_papers_data_and_whole_network_are_reproduced(known: dict[str, Any], changes: dict[str, Any]) -> None:
    (line,) = table(page([claim(**known)], found(**changes)), "| Paper | Task | Row |")
    assert line[8] == "transposed"


def test_sides_stand_in_their_order_with_scratch_at_zero_for_areas() -> None:
    known = [claim(row="none", published=0.4), claim(row="ntp", published=-0.8)]
    (line,) = table(page(known, found()), "| Paper | Task | Number | Published |")
    assert line[3:] == ["ntp &lt; scratch &lt; none", "ntp &lt; scratch &lt; none", "yes"]
    known = [claim(row="none", published=-0.9), claim(row="ntp", published=-0.8)]
    (line,) = table(page(known, found()), "| Paper | Task | Number | Published |")
    assert line[3] == "none &lt; ntp &lt; scratch" and line[5] == "no"
    assert "Sides in order" not in page([claim(quantity="source", published=0.9)], found())


def test_sides_stand_in_order_under_every_attack_of_the_suite() -> None:
    stronger = results(("ntp",), attack="stronger", gain=0.3) + results(("scratch",), attack="stronger")
    reproduced = {"tiny": Reproduction.of([*results(), *stronger], tiny())}
    theirs, other = table(page([claim(quantity="accuracy")], reproduced), "| Task | Attack | The paper's |")
    assert theirs[1:3] == ["theirs", "yes"] and other[1:3] == ["stronger", "no"]
    assert theirs[3].split(" &lt; ") == ["ntp 30.0", "ntp-tuned 45.0", "scratch 50.0", "none 70.0"]
    assert other[3].split(" &lt; ") == ["scratch 50.0", "ntp 60.0"]
    assert "under every attack" not in page([claim()], reproduced)


def test_a_cause_is_a_second_row_and_says_what_is_left_of_the_distance() -> None:
    cause = {"row": "ntp-tuned", "change": "trained on source before release"}
    (line,) = table(page([claim(causes=[cause])], found()), "| Claim | Changed |")
    assert line[1:] == ["trained on source before release", "ntp-tuned", "0.0", "+15.0"]
    assert "What makes the distance" not in page([claim(causes=[{"row": "x", "change": "y"}])], found())


def test_a_cause_may_be_how_scratch_is_trained() -> None:
    budget = Epochs(epochs=3, each=2)
    cells = [recipe("scratch", "longer", n, seed, budget=budget) for n in (10, 100, 1000) for seed in (0, 1)]
    stronger = [outcome(cell, trajectory([0.6], ends=budget.ends)) for cell in cells]
    here = {"tiny": Reproduction.of([*results(), *stronger], tiny())}
    cause = {"scratch": "longer", "change": "scratch trained for longer"}
    (line,) = table(page([claim(causes=[cause])], here), "| Claim | Changed |")
    assert line[1:] == ["scratch trained for longer", "scratch, longer", "0.0", "-10.0"]


def test_published_runs_come_back_as_they_were(tmp_path: Path) -> None:
    (path,) = publish(results(), tiny(), tmp_path)
    text = path.read_text()
    assert path.name == "tiny.json" and publish(reversed(results()), tiny(), tmp_path) == [path]
    assert path.read_text() == text and page([claim()], read_all(tmp_path)) == page([claim()], found())
    path.write_text(text.replace('"score": 0.7', '"score": 0.2', 1))
    with pytest.raises(UserError, match=r"tiny\.json: checksum = .* does not fit the content; publish again"):
        read_all(tmp_path)


def test_a_suite_without_protocols_publishes_nothing_here(tmp_path: Path) -> None:
    plain = [outcome(recipe("none", "weak", 10, 0), trajectory([0.9]))]
    assert publish(plain, suite(), tmp_path) == [] and list(tmp_path.iterdir()) == []


def test_the_claims_of_the_project_name_what_its_suites_have() -> None:
    suites = {name: load_suite(name) for name in suite_names()}
    for known in known_claims():
        named = suites[known.suite]
        rows = {row for entry in named.defenses for row in entry.rows}
        labels = {label for entry in named.attacks for label, _ in entry.variants()}
        assert {known.row, *(cause.row for cause in known.causes if cause.row)} <= rows, known
        assert {cause.scratch for cause in known.causes if cause.scratch} <= labels, known
        assert known.task in {task.name for task in named.tasks}
        assert abs(known.published) <= (known.span if known.quantity == "slc" else 1.0)


def test_the_committed_page_is_that_of_the_committed_runs() -> None:
    text = (ROOT / "leaderboard/claims.md").read_text(encoding="utf-8")
    assert text == render(ROOT / "leaderboard/reproduced") and not re.search(r"\b(nan|None)\b", text)
