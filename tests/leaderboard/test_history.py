"""A row's history: what it said before, which new attack carries its worst cases since, and edits that are named."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from ntbench.leaderboard.history import saying
from ntbench.leaderboard.publish import publish
from ntbench.leaderboard.published import Board
from ntbench.leaderboard.render import render
from ntbench.leaderboard.schema import Published, read
from ntbench.leaderboard.validate import validate
from small_board import GAIN, NEW, Files, loaded, small_results, small_suite, written

from ntbench.errors import UserError
from ntbench.types import digest

FIRST, LATER = date(2030, 1, 1), date(2030, 2, 1)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory, published: Path) -> Path:
    """The board of the second version, published over the first; tests must not change it."""
    folder = tmp_path_factory.mktemp("second")
    for path in published.rglob("*.json"):
        place = folder / path.relative_to(published)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    publish(small_results(version=2), small_suite(2), folder, FIRST)
    return folder


@pytest.fixture
def edited(second: Path, tmp_path: Path) -> Path:
    """The same, for tests that change it."""
    for path in second.rglob("*.json"):
        place = tmp_path / path.relative_to(second)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    return tmp_path


def test_files_without_a_history_have_no_such_key(published: Path) -> None:
    assert all('"history"' not in path.read_text() for path in published.rglob("*.json"))


def test_a_later_version_keeps_what_every_row_said(published: Path, second: Path) -> None:
    assert validate(second) == []
    for name in GAIN:
        before, after = (read(folder / f"tiny/{name}/a-b.json", Published) for folder in (published, second))
        (past,) = after.history
        assert (after.protocol, past.protocol, past.until) == ("tiny-2", "tiny-1", "2030-01-01")
        assert past.checksum == before.checksum
        assert saying(past) == saying(before)
        for row, said in zip(before.rows, past.rows, strict=True):
            assert (row["track"], row["mask"], row["verdict"], row["attack"]) == (
                said.track,
                said.mask,
                said.verdict,
                said.attack,
            )
            assert (row["leak"] is None) == (said.leak is None)
            assert row["leak"] is None or said.leak == pytest.approx(row["leak"], abs=1e-4)


def test_the_new_attack_is_named_where_it_carries_the_worst_case_and_nowhere_else(second: Path) -> None:
    since = {
        name: {row.since for row in read(second / f"tiny/{name}/a-b.json", Published).history[0].rows} for name in GAIN
    }
    assert since == {"none": {()}, "scratch": {()}, "ntp": {()}, "sophon": {(NEW,)}}
    table = Board.read(second / "tiny").table
    assert table[table.defense == "sophon"].iloc[0].attack == NEW


def test_publishing_the_same_again_adds_nothing(edited: Path) -> None:
    held = {path: path.read_bytes() for path in edited.rglob("*.json")}
    for day in (FIRST, LATER):
        publish(small_results(version=2), small_suite(2), edited, day)
        assert {path: path.read_bytes() for path in edited.rglob("*.json")} == held


def test_what_changes_within_a_version_is_a_step_too_unless_it_lived_for_less_than_a_day(edited: Path) -> None:
    others = [r for r in small_results(version=2) if r.cell.defense.name != "sophon"]
    worse = [
        r.model_copy(update={"trajectory": r.trajectory.model_copy(update={"val": (0.0,) * 7})})
        if r.cell.attack.label == NEW and r.status == "ok"
        else r
        for r in small_results(("sophon",), version=2)
    ]
    publish([*others, *worse], small_suite(2), edited, FIRST)
    assert validate(edited) == []
    assert [past["until"] for past in loaded(edited, "sophon")["history"]] == ["2030-01-01"]
    assert loaded(edited, "sophon")["history"][0]["rows"][0]["since"] == [], "the attacker does not take it any more"
    publish(small_results(version=2), small_suite(2), edited, LATER)
    assert validate(edited) == []
    past = loaded(edited, "sophon")["history"]
    assert [(p["protocol"], p["until"]) for p in past] == [("tiny-1", "2030-01-01"), ("tiny-2", "2030-02-01")]
    assert len(loaded(edited, "ntp")["history"]) == 1


def test_rows_of_two_versions_never_stand_together(copy: Path) -> None:
    held = {path: path.read_bytes() for path in copy.rglob("*.json")}
    few = ("none", "scratch", "ntp")
    with pytest.raises(UserError, match=r"tiny-2 lacks 1 rows of the published tiny-1, first tiny/sophon/a-b.json"):
        publish(small_results(few, version=2), small_suite(2, defenses=[{"name": name} for name in few]), copy)
    assert {path: path.read_bytes() for path in copy.rglob("*.json")} == held
    (copy / "tiny/sophon/a-b.json").unlink()
    publish(small_results(few, version=2), small_suite(2, defenses=[{"name": name} for name in few]), copy)
    assert validate(copy) == []
    with pytest.raises(UserError, match="tiny-1 is older than the published tiny-2; run that suite"):
        publish(small_results(), small_suite(), copy)


def test_a_row_that_joins_later_has_no_history(edited: Path) -> None:
    more = small_suite(2, defenses=[{"name": "none"}, {"name": "scratch"}, {"name": "sophon", "label": "other"}])
    extra = []
    for r in small_results(("sophon",), version=2):
        cell = r.cell.model_copy(update={"defense": r.cell.defense.model_copy(update={"label": "other"})})
        extra.append(r.model_copy(update={"cell": cell}))
    publish([*small_results(("none", "scratch"), version=2), *extra], more, edited, LATER)
    assert validate(edited) == []
    assert "history" not in loaded(edited, "other")
    assert "history" in loaded(edited, "sophon")


def test_the_page_tells_a_history(published: Path, second: Path) -> None:
    assert "What rows said before" not in render(published)
    page = render(second)
    then = loaded(second, "sophon")["rows"][0]["leak"]
    found = re.search(r"\| sophon \| 2030-01-01 \| tiny-1 \| (.*) \| (.*) \| (.*) \| (.*) \| new \|", page)
    assert found
    assert found[4].startswith(f"{then:.2f} ")
    assert re.search(r"\| ntp \| 2030-01-01 \| tiny-1 \|.*\| - \|", page)


Edit = Callable[[Files], Any]
EDITS: dict[str, tuple[Edit, str]] = {
    "an attack that carries nothing": (
        lambda past: past["rows"][0].update(since=["weak"]),
        r"history\.0\.rows\.since = \[\('weak',\)\]: the cells give \[\('new',\)\]",
    ),
    "an attack left out": (lambda past: past["rows"][0].update(since=[]), r"the cells give \[\('new',\)\]"),
    "another day": (lambda past: past.update(until="2029-12-31"), r"history\.until of tiny-1 differs between rows"),
    "no day": (lambda past: past.update(until="2030-13-01"), r"until = '2030-13-01'"),
    "a later version": (lambda past: past.update(protocol="tiny-3"), r"\['tiny-3'\]: does not lead to tiny-2"),
    "another suite": (lambda past: past.update(protocol="other-1"), r"\['other-1'\]: does not lead to tiny-2"),
    "another verdict": (lambda past: past["rows"][0].update(verdict="great"), r"verdict = 'great'"),
    "a word for a number": (lambda past: past["rows"][0].update(leak="low"), r"leak"),
    "no hash": (lambda past: past.update(checksum="?"), r"checksum = '\?'"),
    "more": (lambda past: past.update(note="x"), r"note = 'x'"),
}


@pytest.mark.parametrize(("edit", "problem"), EDITS.values(), ids=EDITS.keys())
def test_an_edited_history_is_named_also_with_its_hash_made_anew(edited: Path, edit: Edit, problem: str) -> None:
    file = loaded(edited, "sophon")
    edit(file["history"][0])
    content = {name: value for name, value in file.items() if name != "checksum"}
    written(edited, content | {"checksum": digest(content)}, "sophon")
    lines = validate(edited)
    assert any(re.search(problem, line) for line in lines), lines


def test_a_step_in_which_nothing_changed_and_days_that_fall_are_named(edited: Path) -> None:
    file = loaded(edited, "sophon")
    file["history"] = [file["history"][0]] * 2
    written(edited, file, "sophon")
    lines = "\n".join(validate(edited))
    assert "history.until = ['2030-01-01', '2030-01-01']: days do not rise" in lines
    assert "history.0 = tiny-1: says nothing else than what came next" in lines
    assert "does not fit the content" in lines
