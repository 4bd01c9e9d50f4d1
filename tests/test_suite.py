from __future__ import annotations

import math
import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntbench.engine.calibrate import guessed
from ntbench.engine.plan import plan
from ntbench.errors import UserError
from ntbench.suite import AttackEntry, Suite, load_suite, parse_suite, suite_names

SMOKE = resources.files("ntbench.protocols").joinpath("smoke.toml").read_text(encoding="utf-8")
TASK = SMOKE[SMOKE.index("[[tasks]]") : SMOKE.index("[[defenses]]")]
Edit = Callable[[str], str]


def edit(old: str, new: str) -> Edit:
    assert SMOKE.count(old) >= 1, old
    return lambda text: text.replace(old, new, 1)


@pytest.mark.parametrize("name", suite_names())
def test_built_in_suites_load_and_every_name_in_them_stands_for_something(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    cells = plan(guessed(suite))
    assert len({cell.key for cell in cells}) == len({cell.coordinates for cell in cells}) == len(cells) > 0


def test_the_suites_of_the_project_are_there() -> None:
    assert {"smoke", "quick"} <= set(suite_names())


MISTAKES: dict[str, tuple[Edit, list[str]]] = {
    "unknown key": (
        edit("seeds =", "sedes ="),
        ["sedes = [0]", "unknown key", "remove it", "seeds: missing; add it"],
    ),
    "key of the first edition": (
        edit("horizon = 8", "ratios = [0.1, 1.0]"),
        ["ratios = [0.1, 1.0]: unknown key; remove it or correct its spelling"],
    ),
    "unknown inner key": (edit("steps = 20", "stepz = 20"), ["pretrain.stepz = 20", "unknown key"]),
    "missing table": (edit('[arch]\nname = "cnns_bn"\n', ""), ["arch: missing; add it"]),
    "missing key": (edit('source = "digits"\n', ""), ["tasks.0.source: missing; add it"]),
    "wrong type": (edit("steps = 20", 'steps = "many"'), ["pretrain.steps = 'many'", "integer"]),
    "out of range": (edit("lr = 2e-3", "lr = -1"), ["pretrain.lr = -1", "greater than 0"]),
    "duplicate seeds": (edit("seeds = [0]", "seeds = [1, 1]"), ["seeds = [1, 1]", "twice", "remove one"]),
    "negative seed": (edit("seeds = [0]", "seeds = [0, -1]"), ["seeds.1 = -1", "greater than or equal to 0"]),
    "a precision that nothing computes in": (
        edit("horizon = 8", 'scoring = "float16"'),
        ["scoring = 'float16'", "'float32' or 'bfloat16'"],
    ),
    "no seed": (edit("seeds = [0]", "seeds = []"), ["seeds = []", "at least 1"]),
    "equal counts": (edit("samples = 96", "samples = 12"), ["tasks.0", "the samples [12, 12] must rise strictly"]),
    "falling counts": (edit("samples = 96", "samples = 6"), ["tasks.0", "the samples [12, 6] must rise strictly"]),
    "a single count": (
        edit(", { samples = 96, t90 = 1.5, plateau = 0.4 }", ""),
        ["tasks.0.levels", "at least 2 items"],
    ),
    "a plateau in percent": (edit("plateau = 0.3", "plateau = 30"), ["tasks.0.levels.0.plateau = 30", "less than or"]),
    "a horizon below T90": (edit("horizon = 8", "horizon = 0.5"), ["horizon = 0.5", "greater than or equal to 1"]),
    "budgets too far apart": (edit("horizon = 8", "scored = 4"), ["scored = 4", "less than or equal to 2"]),
    "two tasks of one name": (
        edit("[[defenses]]", f"{TASK.replace('image_size = 8', 'image_size = 16')}[[defenses]]"),
        ["tasks", "two tasks are named 'digits-digits_m'; give each its own `label`"],
    ),
    "the same task twice": (edit("[[defenses]]", f"{TASK}[[defenses]]"), ["tasks", "same value twice", "remove one"]),
    "a default that is no attack": (
        edit("horizon = 8", 'own = true\ndefault = "momentum 1"'),
        ["default: unknown attack label 'momentum 1'; did you mean 'momentum 0.01'?"],
    ),
    "attackers who go by their own data without a default": (
        edit("horizon = 8", "own = true"),
        ["default: unknown attack label ''"],
    ),
    "a row that nothing has": (
        edit('label = "new head, {optimizer} {lr:g}"', 'label = "new head, {optimizer} {lr:g}"\nagainst = ["nonne"]'),
        ["attacks: against: unknown row 'nonne'; did you mean 'none'"],
    ),
    "unknown paper attack": (
        edit('attack = "momentum 0.01"', 'attack = "momentum 0.1"'),
        ["paper.attack", "unknown attack label 'momentum 0.1'", "did you mean 'momentum 0.01'?"],
    ),
    "unknown attack of the paper's scratch": (
        edit('{ attack = "momentum 0.01" }', '{ attack = "momentum 0.01", scratch = "momentum 1" }'),
        ["paper.scratch", "unknown attack label 'momentum 1'", "did you mean 'momentum 0.01'?"],
    ),
    "a protocol without passes": (
        edit("[[attacks]]\n", "[[attacks]]\nprotocol = { epochs = 0 }\n"),
        ["attacks.0.protocol.epochs = 0", "greater than or equal to 1"],
    ),
    "a protocol of another choice": (
        edit("[[attacks]]\n", '[[attacks]]\nprotocol = { epochs = 9, select = "best" }\n'),
        ["attacks.0.protocol.select = 'best'", "'last', 'best val' or 'best test'"],
    ),
    "patience with the last pass": (
        edit("[[attacks]]\n", "[[attacks]]\nprotocol = { epochs = 9, patience = 2 }\n"),
        ["attacks.0.protocol", "patience needs a score to wait for; add select = 'best val' or 'best test'"],
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
    "syntax": (edit("version = 2", "version = = 2"), ["not valid TOML", "line 2"]),
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
    text = SMOKE.replace("version = 2", "version = 0").replace("steps = 20", "steps = 0")
    with pytest.raises(UserError) as caught:
        parse_suite(text, "x.toml")
    assert [line.split(" = ")[0] for line in str(caught.value).splitlines()] == [
        "x.toml: version",
        "x.toml: pretrain.steps",
    ]


def test_a_mistake_in_an_item_does_not_make_its_list_too_short() -> None:
    with pytest.raises(UserError) as caught:
        parse_suite(SMOKE.replace("levels =", "level ="), "x.toml")
    keys = [line.split(" = ")[0].split(": ")[1] for line in str(caught.value).splitlines()]
    assert sorted(keys) == ["tasks.0.level", "tasks.0.levels"]


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
    assert suite.protocol == "smoke-2"


def test_some_tasks_of_a_suite() -> None:
    text = SMOKE.replace("[[defenses]]", f"{TASK.replace('digits_m', 'syn')}[[defenses]]", 1)
    suite = parse_suite(text, "two.toml")
    assert [task.name for task in suite.with_tasks(("digits-syn", "digits-syn")).tasks] == ["digits-syn"]
    assert suite.with_tasks(("digits-syn", "digits-digits_m")).tasks == suite.tasks[::-1]
    with pytest.raises(UserError, match="unknown task of smoke 'digits-sin'; did you mean 'digits-syn'"):
        suite.with_tasks(("digits-sin",))


def test_a_label_tells_two_tasks_of_one_pair_apart() -> None:
    second = TASK.replace("image_size = 8", 'image_size = 16\nlabel = "larger"')
    suite = parse_suite(SMOKE.replace("[[defenses]]", f"{second}[[defenses]]", 1), "two.toml")
    assert [task.name for task in suite.tasks] == ["digits-digits_m", "larger"]


def test_a_grid_of_a_defense_is_as_many_rows() -> None:
    text = SMOKE.replace("params = { steps = 5 }", 'label = "ntl-{alpha:g}"\ngrid = { alpha = [0.1, 1.0] }')
    suite = parse_suite(text, "ablation.toml")
    assert suite.defenses[-1].rows == ["ntl-0.1", "ntl-1"]
    assert [row for entry in suite.defenses for row in entry.rows] == [
        "none",
        "scratch",
        "magnitude",
        "ntl-0.1",
        "ntl-1",
    ]
    with pytest.raises(UserError, match=r"two rows share a label in .*; give each its own `label`"):
        parse_suite(text.replace("ntl-{alpha:g}", "ntl"), "ablation.toml")


def test_attacks_face_the_rows_that_they_are_set_against_and_always_the_baselines() -> None:
    everyone, some = AttackEntry(name="finetune"), AttackEntry(name="finetune", against=("ntl-0.1", "sophon"))
    assert everyone.faces("ntl-1", "ntl")
    assert some.faces("ntl-0.1", "ntl") and some.faces("sophon, 5 loops", "sophon")
    assert some.faces("from nothing", "scratch") and some.faces("published", "public")
    assert not some.faces("ntl-1", "ntl") and not some.faces("none", "none")


@given(
    st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(0, 9), min_size=1, max_size=3), max_size=3),
    st.dictionaries(st.sampled_from("cdef"), st.integers(10, 19), max_size=3),
)
def test_variants_are_every_point_of_the_grid_once(grid: dict[str, list[int]], params: dict[str, int]) -> None:
    found = AttackEntry(name="finetune", grid=grid, params=params).variants()
    assert len(found) == math.prod(len(values) for values in grid.values())
    for label, point in found:
        assert label == "finetune" and point.keys() == {*grid, *params}
        assert all(point[name] in grid[name] for name in grid)
        assert all(point[name] == value for name, value in params.items() if name not in grid)
    for name, values in grid.items():
        counts = [sum(point[name] == value for _, point in found) for value in set(values)]
        assert sum(counts) == len(found)


def test_what_suites_did_not_have_at_first_leaves_their_content_as_it_was() -> None:
    suite = load_suite("smoke")
    assert not {"scoring", "axis", "tuned"} & suite.model_dump().keys()
    assert suite.model_dump()["paper"] == {"attack": "momentum 0.01", "mask": "dense"}
    assert all("protocol" not in entry for entry in suite.model_dump(mode="json")["attacks"])
    text = SMOKE.replace("[[attacks]]\n", "[[attacks]]\nprotocol = { epochs = 9 }\n", 1)
    told = parse_suite(text, "x.toml").model_dump(mode="json")
    assert told["attacks"][0]["protocol"] == {"epochs": 9, "select": "last", "patience": 0}
    assert Suite.model_validate(told) == parse_suite(text, "x.toml")
