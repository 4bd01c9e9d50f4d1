from __future__ import annotations

import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ntbench.engine.plan import plan
from ntbench.errors import UserError
from ntbench.suite import AttackEntry, Suite, load_suite, parse_suite, suite_names

SMOKE = resources.files("ntbench.protocols").joinpath("smoke.toml").read_text(encoding="utf-8")
Edit = Callable[[str], str]


def edit(old: str, new: str) -> Edit:
    assert SMOKE.count(old) >= 1, old
    return lambda text: text.replace(old, new, 1)


@pytest.mark.parametrize("name", suite_names())
def test_built_in_suites_load_and_every_name_in_them_stands_for_something(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    cells = plan(suite)
    assert len({cell.key for cell in cells}) == len({cell.coordinates for cell in cells}) == len(cells) > 0


def test_the_suites_of_the_project_are_there() -> None:
    assert {"smoke", "quick", "embedded"} <= set(suite_names())


MISTAKES: dict[str, tuple[Edit, list[str]]] = {
    "unknown key": (
        edit("seeds =", "sedes ="),
        ["sedes = [0, 1]", "unknown key", "remove it", "seeds: missing; add it"],
    ),
    "unknown inner key": (edit("steps = 20", "stepz = 20"), ["pretrain.stepz = 20", "unknown key"]),
    "missing table": (edit('[arch]\nname = "cnns_bn"\n', ""), ["arch: missing; add it"]),
    "missing key": (edit('source = "digits"\n', ""), ["tasks.0.source: missing; add it"]),
    "wrong type": (edit("steps = 20", 'steps = "many"'), ["pretrain.steps = 'many'", "integer"]),
    "out of range": (edit("lr = 2e-3", "lr = -1"), ["pretrain.lr = -1", "greater than 0"]),
    "duplicate seeds": (edit("seeds = [0, 1]", "seeds = [1, 1]"), ["seeds = [1, 1]", "twice", "remove one"]),
    "negative seed": (edit("seeds = [0, 1]", "seeds = [0, -1]"), ["seeds.1 = -1", "greater than or equal to 0"]),
    "no seed": (edit("seeds = [0, 1]", "seeds = []"), ["seeds = []", "at least 1"]),
    "unsorted ratios": (edit("[0.05, 0.2, 1.0]", "[0.2, 0.05, 1.0]"), ["ratios = [0.2, 0.05, 1.0]", "rise strictly"]),
    "ratio of zero": (edit("[0.05, 0.2, 1.0]", "[0.0, 0.2, 1.0]"), ["ratios = [0.0, 0.2, 1.0]", "within (0, 1]"]),
    "single ratio": (edit("[0.05, 0.2, 1.0]", "[1.0]"), ["ratios = [1.0]", "at least 2"]),
    "wrong scored steps": (edit("scored = [1, 3, 6]", "scored = [1, 3]"), ["budget", "scored=[1, 3]", "steps=6"]),
    "unknown paper attack": (
        edit('attack = "momentum 0.01"', 'attack = "momentum 0.1"'),
        ["paper.attack", "unknown attack label 'momentum 0.1'", "did you mean 'momentum 0.01'?"],
    ),
    "two rows of one label": (edit('name = "scratch"', 'name = "none"'), ["defenses", "['none', 'none',", "`label`"]),
    "two attacks of one label": (
        edit('label = "new head, {optimizer} {lr:g}"', 'label = "momentum 0.01"'),
        ["attacks", "('momentum 0.01', 'dense')", "`label`"],
    ),
    "label of an unknown field": (edit("{optimizer} {lr:g}", "{optimiser}"), ["label '{optimiser}'", "{optimizer}"]),
    "label of a wrong format": (edit("{optimizer} {lr:g}", "{optimizer:g}"), ["label '{optimizer:g}'", "{optimizer}"]),
    "empty grid": (edit('mask = ["dense", "keep"]', "mask = []"), ["attacks.0.grid.mask = []", "at least 1"]),
    "grid that is no list": (
        edit('mask = ["dense", "keep"]', 'mask = "keep"'),
        ["attacks.0.grid.mask = 'keep'", "list"],
    ),
    "name in capitals": (edit('name = "smoke"', 'name = "Smoke!"'), ["name = 'Smoke!'", "pattern"]),
    "syntax": (edit("version = 1", "version = = 1"), ["not valid TOML", "line 2"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_names_the_file_the_key_the_value_and_the_remedy(mistake: str, tmp_path: Path) -> None:
    change, expected = MISTAKES[mistake]
    file = tmp_path / "mine.toml"
    file.write_text(change(SMOKE), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_suite(str(file))
    message = str(caught.value)
    assert all(line.startswith(f"{file}: ") for line in message.splitlines())
    assert [text for text in expected if text not in message] == []


def test_several_mistakes_are_told_at_once() -> None:
    text = SMOKE.replace("version = 1", "version = 0").replace("steps = 20", "steps = 0")
    with pytest.raises(UserError) as caught:
        parse_suite(text, "x.toml")
    assert [line.split(" = ")[0] for line in str(caught.value).splitlines()] == [
        "x.toml: version",
        "x.toml: pretrain.steps",
    ]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("smok", "did you mean 'smoke'?"),
        ("zzz", "known: "),
        ("missing.toml", "does not exist; give the path of a TOML file"),
        ("some/where", "does not exist"),
    ],
)
def test_suites_that_are_not_there(name: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        load_suite(name)
    assert repr(name) in str(caught.value) and hint in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "image.toml"
    file.write_bytes(bytes(range(128, 256)))
    with pytest.raises(UserError, match="not valid TOML"):
        load_suite(str(file))


def test_a_grid_is_the_product_of_its_lists_over_the_parameters() -> None:
    entry = AttackEntry(
        name="finetune",
        label="{optimizer} {lr:g}",
        params={"lr": 1.0, "steps": 5},
        grid={"optimizer": ["a", "b"], "lr": [0.1, 0.01]},
    )
    assert entry.variants() == [
        (f"{optimizer} {lr:g}", {"lr": lr, "steps": 5, "optimizer": optimizer})
        for optimizer in "ab"
        for lr in (0.1, 0.01)
    ]


def test_the_paper_setting_is_the_rows_own_or_the_suites() -> None:
    content: dict[str, Any] = tomllib.loads(SMOKE)
    content["defenses"][3]["paper"] = {"attack": "new head, adam 0.003", "mask": "keep"}
    suite = Suite.model_validate(content)
    assert suite.paper_setting("ntl").attack == "new head, adam 0.003"
    assert suite.paper_setting("ntl").mask == "keep"
    assert suite.paper_setting("none").attack == "momentum 0.01"
    assert suite.protocol == "smoke-1"


def test_some_tasks_of_a_suite() -> None:
    suite = load_suite("embedded")
    assert [task.name for task in suite.with_tasks(("syn-digits_m", "syn-digits_m")).tasks] == ["syn-digits_m"]
    with pytest.raises(UserError, match="unknown task of embedded 'syn-digitsm'; did you mean 'syn-digits_m'"):
        suite.with_tasks(("syn-digitsm",))


def test_a_search_stands_in_place_of_the_attacks() -> None:
    suite = load_suite("quick").searched(250)
    (search,) = suite.attacks
    assert (search.name, search.params, search.grid) == ("auto", {"runs": 3}, {"mask": ["dense", "keep"]})
    assert suite.paper_setting("ntp-fisher").attack == "auto" and suite.protocol == "quick_searched-1"
    with pytest.raises(UserError, match="--budget 79: a single run of quick takes 80 steps; give more"):
        load_suite("quick").searched(79)


def test_an_attack_is_set_against_rows_that_exist(tiny: Suite) -> None:
    text = tiny.model_dump(mode="json")
    text["attacks"][0]["against"] = ["nonne"]
    with pytest.raises(ValidationError, match="against: unknown row 'nonne'; did you mean 'none'"):
        Suite.model_validate(text)
    text["attacks"][0]["against"] = ["none"]
    assert Suite.model_validate(text).attacks[0].against == ("none",)
