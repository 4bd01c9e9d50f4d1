"""Boards that rank their shared defenses alike or in reverse, and which defenses two boards share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import small_board
from fabricated import SPEC
from ntbench.leaderboard.publish import publish
from ntbench.leaderboard.rankings import shared
from ntbench.leaderboard.render import render
from small_board import COUNTS, SEEDS, one, small_suite

from ntbench.types import MethodSpec, Tuning

TITLE = "## Do boards rank defenses alike?"
ATTACKS = ("weak", "strong")
RISING = {"sophon": 0.0, "ntl": 0.2, "ntp": 0.4}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Publish a board on which defenses gain so much, and return the folder of all boards so far."""

    def added(name: str, gains: Mapping[str, float], seeds: tuple[int, ...] = SEEDS, **changes: Any) -> Path:
        whole = {"none": 0.5, "scratch": 0.0, **gains}
        monkeypatch.setattr(small_board, "GAIN", whole)
        rows = [
            one(row, "dense", attack, samples, seed, f"{name}-1")
            for row in whole
            for attack in ATTACKS
            for samples in COUNTS
            for seed in seeds
        ]
        entries = [{"name": row.split("-")[0], "label": row} for row in whole]
        attacks = [{"name": "finetune", "label": label, "params": {"mask": "dense"}} for label in ATTACKS]
        publish(rows, small_suite(name=name, seeds=seeds, defenses=entries, attacks=attacks, **changes), tmp_path)
        return tmp_path

    return added


def told(page: str) -> list[str]:
    """Return the only line of the section."""
    table = page[page.index(TITLE) :].split("\n\n")[1].splitlines()
    assert len(table) == 3 and table[0].startswith("| Board | Other board | Spearman | Shared rows |")
    return [cell.strip() for cell in table[2].strip("|").split(" | ")]


def test_the_same_order_is_1_and_labels_do_not_matter(results: Any) -> None:
    assert TITLE not in render(results("small", RISING)), "one board has nothing to agree with"
    page = render(results("large", {"ntp": 0.4, "sophon-ice": 0.1, "ntl": 0.25}))
    first, second, correlation, number, rows, tuned = told(page)
    assert (first, second) == ("large-1: a to b, cnn", "small-1: a to b, cnn")
    assert correlation == r"1.00 \[1.00, 1.00\]" and number == "3" and tuned == "-"
    assert rows == "ntp, sophon-ice / sophon and ntl", "in the order of the first board, none left out"


def test_the_reverse_is_minus_1(results: Any) -> None:
    results("small", RISING)
    correlation = told(render(results("large", {"sophon": 0.35, "ntl": 0.2, "ntp": 0.05})))[2]
    assert correlation == r"-1.00 \[-1.00, -1.00\]"


def test_two_shared_rows_make_no_section(results: Any) -> None:
    results("small", RISING)
    assert TITLE not in render(results("other", {"sophon": 0.05, "ntl": 0.2, "tar": 0.35}))


def test_leaks_over_compute_are_compared_among_themselves(results: Any) -> None:
    results("small", RISING)
    results("compute", RISING, axis="compute")
    first, second, *_ = told(render(results("later", RISING, axis="compute")))
    assert (first, second) == ("compute-1: a to b, cnn", "later-1: a to b, cnn")


def test_under_five_seeds_there_is_no_interval(results: Any) -> None:
    results("small", RISING)
    assert told(render(results("few", RISING, SEEDS[:3])))[2] == "1.00, no interval under five seeds"


def spec(name: str, label: str = "", tuned: tuple[str, ...] = (), **params: Any) -> MethodSpec:
    tuning = Tuning(trials=2, names=tuned, steps=1, flops=1) if tuned else None
    return MethodSpec(kind="defense", name=name, label=label or name, params=params, tuning=tuning, **SPEC)


def test_a_row_is_shared_where_method_and_parameters_are_the_same() -> None:
    ice, klu, slow = spec("sophon", "ice", loss="ice"), spec("sophon", "klu", loss="klu"), spec("sophon", lr=1)
    mine = [ice, klu, spec("ntl", lr=1)]
    theirs = [slow, spec("sophon", "other label", loss="klu"), spec("ntp", lr=1), spec("ntl", lr=2)]
    assert shared(mine, theirs) == [(klu, theirs[1])]


def test_what_tuning_chose_may_differ_and_what_was_stated_may_not() -> None:
    ice, klu = (spec("sophon", loss, ("lr",), loss=loss, lr=0.3, loops=9) for loss in ("ice", "klu"))
    fast, plain, short = (
        spec("sophon", "fast", loss="ice", lr=2.0, loops=9),
        spec("sophon", "plain", loss="ice", lr=1.0, loops=9),
        spec("sophon", "short", loss="klu", lr=1.0, loops=5),
    )
    assert (
        shared([ice, klu], [short, fast, plain]) == [(ice, fast)] == [(b, a) for a, b in shared([fast, short], [ice])]
    )
    same = spec("sophon", "same", loss="ice", lr=0.3, loops=9)
    assert shared([ice], [fast, same]) == [(ice, same)], "the row with the same parameters comes first"
    assert shared([klu, ice], [fast, spec("sophon", "k", loss="klu", lr=0.3, loops=9)])[0][0] is klu


def test_each_row_is_shared_once_and_in_the_order_of_the_first_board() -> None:
    tuned, exact = spec("ntl", tuned=("lr",), lr=0.1), spec("ntp", lr=1)
    others = [spec("ntp", "b", lr=1), spec("ntl", "a", lr=2), spec("ntl", "c", lr=3)]
    assert shared([tuned, exact], others) == [(tuned, others[1]), (exact, others[0])]
    assert shared([exact, spec("ntp", "again", lr=1)], others[:1]) == [(exact, others[0])]
