"""Metrics of somebody's own beside the board: their numbers by hand, and what is told of those that give none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fabricated import COUNTS, SEEDS, additive, grid, suite
from scipy import stats

from ntbench.errors import UserError
from ntbench.measure.areas import mean_weights
from ntbench.measure.board import COLUMNS, leaderboard_table
from ntbench.measure.registered import Registered, known, measured
from ntbench.measure.standing import Study
from ntbench.metric import Metric, Row
from ntbench.registry import Registry, registry

WEIGHTS = mean_weights(COUNTS)
RESULTS = list(grid(additive))
STUDY = Study(RESULTS, suite())
BOARD = leaderboard_table(STUDY, suite())


def metric(measure: Callable[[Row], Any], name: str = "mine", better: str = "lower") -> type[Metric]:
    """Return a metric that measures so."""
    facts = {"name": name, "better": better, "measure": lambda self, row: measure(row), "__doc__": "Mine."}
    return type("Mine", (Metric,), facts)


def table(*metrics: type[Metric]) -> pd.DataFrame:
    return measured(STUDY, metrics).beside(BOARD)


NUMBERS: dict[str, tuple[str, Callable[[Row], Any]]] = {
    "uplift": ("uplift", lambda row: WEIGHTS @ (row.attacker - row.baseline)),
    "SLC-AUC": ("slc", lambda row: np.log(100) * WEIGHTS @ (row.release - row.baseline)),
    "source drop": ("drop", lambda row: row.source_before - row.source_after),
    "leak": (
        "leak",
        lambda row: (
            np.mean(WEIGHTS @ (row.attacker - row.baseline)) / np.mean(WEIGHTS @ (row.unprotected - row.baseline))
        ),
    ),
    "oracle": (
        "oracle_uplift",
        lambda row: WEIGHTS @ np.maximum(0, np.nanmax(row.scores, axis=(0, 3)) - row.baseline).mean(axis=1),
    ),
    "seconds": ("protect_seconds", lambda row: row.protect_seconds),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_the_board_can_be_worked_out_from_what_a_metric_sees(name: str) -> None:
    column, measure = NUMBERS[name]
    found = table(metric(measure))
    assert found["mine"].tolist() == pytest.approx(found[column].tolist(), nan_ok=True)
    assert (found["mine_error"] == "").all() and found["mine"].notna().sum() >= 4


def test_one_number_a_seed_becomes_a_mean_with_students_interval() -> None:
    values = np.array([0.1, 0.4, 0.2, 0.5, 0.3])
    row = table(metric(lambda row: values)).iloc[0]
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert row[["mine", "mine_low", "mine_high"]].tolist() == pytest.approx([0.3, low, high])


def test_under_five_seeds_the_ends_are_the_range() -> None:
    few = suite(seeds=SEEDS[:3])
    found = measured(Study(list(grid(additive, seeds=SEEDS[:3])), few), (metric(lambda row: row.seeds),)).table
    assert found.iloc[0][["mine", "mine_low", "mine_high"]].tolist() == [1, 0, 2]


def test_a_single_number_has_no_ends_and_none_is_no_number() -> None:
    found = table(metric(lambda row: None if row.defense == "scratch" else 7)).set_index("defense")
    assert found.loc["sophon", "mine"] == 7 and bool(found["mine_low"].isna()["sophon"])
    assert found["mine"].isna()["scratch"] and found.loc["scratch", "mine_error"] == ""


def test_a_row_is_what_the_run_holds() -> None:
    seen: dict[tuple[str, str], Row] = {}
    table(metric(lambda row: seen.update({(row.defense, row.mask): row})))
    row = seen["ntp", "keep"]
    assert (row.task, row.track, row.counts.tolist(), row.seeds.tolist()) == ("a-b", "target", [*COUNTS], [*SEEDS])
    assert set(row.attacks) == {"weak (mask kept)", "strong (mask kept)", "other (mask kept)"}
    assert row.budgets[0].tolist() == [1, 2, 5, 10, 20, 40, 80]
    stored = {
        (r.cell.attack.label, r.cell.samples, r.cell.seed): r.trajectory.test
        for r in RESULTS
        if (r.cell.defense.label, r.cell.mask, r.status) == ("ntp", "keep", "ok")
    }
    for (attack, count, seed), scores in stored.items():
        place = row.attacks.index(f"{attack} (mask kept)"), COUNTS.index(count), SEEDS.index(seed)
        assert row.scores[place].tolist() == [*scores]
    assert len(stored) == 3 * len(COUNTS) * len(SEEDS)


def nonsense(value: Any) -> Callable[[Row], Any]:
    return lambda row: value if row.defense == "ntp" else 1.0


def writes(row: Row) -> Any:
    if row.defense == "ntp":
        row.attacker[0] = 0.0
    return 1.0


def leaves(row: Row) -> Any:
    raise SystemExit(3)


WRONG: dict[str, tuple[Callable[[Row], Any], str]] = {
    "raises": (lambda row: 1 / (row.defense != "ntp"), "ZeroDivisionError: division by zero"),
    "leaves": (leaves, "SystemExit: 3"),
    "writes": (writes, "ValueError: assignment destination is read-only"),
    "nan": (nonsense(np.nan), "gives nan; return None where the metric does not apply"),
    "infinite": (nonsense([1, 2, np.inf, 4, 5]), "gives inf; return None"),
    "text": (nonsense("0.5"), "TypeError: gives a str of <U3; return a number, or one a seed"),
    "ragged": (nonsense([[1], [1, 2]]), "ValueError: "),
    "other seeds": (nonsense([1, 2]), r"gives numbers of shape (2,); return one, or one for each of 5 seeds"),
    "a table": (nonsense(np.zeros((5, 5))), "gives numbers of shape (5, 5)"),
    "objects": (nonsense([1, None, 2, 3, 4]), "TypeError: gives a list of object"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_number_is_told_and_loses_nothing_else(name: str) -> None:
    measure, said = WRONG[name]
    found = table(metric(measure), metric(lambda row: 2.0, "other"))
    failed = found[found["defense"] == "ntp"]
    assert failed["mine"].isna().all() and failed["mine_error"].str.startswith(said).all(), failed[
        "mine_error"
    ].tolist()
    rest = found[found["defense"] != "ntp"]
    assert name == "leaves" or ((rest["mine"] == 1) & (rest["mine_error"] == "")).all()
    assert (found["other"] == 2).all()
    pd.testing.assert_frame_equal(found[list(COLUMNS)], BOARD)


def test_rows_without_a_seed_are_not_asked() -> None:
    part = [r for r in RESULTS if r.cell.defense.label != "scratch"]
    found = measured(Study(part, suite()), (metric(lambda row: 1 / 0),)).table
    assert len(found) == 4 and found["mine"].isna().all() and (found["mine_error"] == "").all()


def test_without_metrics_the_board_stays_what_it_is() -> None:
    assert measured(STUDY, ()).beside(BOARD) is BOARD and Registered().beside(BOARD) is BOARD
    assert measured(Study([], suite()), (metric(lambda row: 1),)).beside(BOARD.iloc[:0]).empty


REFUSED = {
    "a column": (
        [("leak", "lower")],
        "metric 'leak' of .* would have the column 'leak', which is a column of the lead",
    ),
    "an end": ([("rank", "lower")], "would have the column 'rank', which is"),
    "the end of one": ([("paper_slc", "lower")], "would have the column 'paper_slc', which is"),
    "of each other": (
        [("mine", "lower"), ("mine_low", "lower")],
        "'mine_low' of .* would have the column 'mine_low', which is one of metric 'mine'; rename it",
    ),
    "better": ([("mine", "more")], "metric 'mine' of .*: better='more'; set it to 'higher' or 'lower'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_metrics_that_cannot_be_columns_are_refused(own_registry: Registry, name: str) -> None:
    named, said = REFUSED[name]
    for own, better in named:
        own_registry.register(metric(lambda row: 1.0, own, better))
    with pytest.raises(UserError, match=said):
        known()


def test_no_metric_costs_no_import(own_registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "discover", lambda: pytest.fail("imports all methods"))
    assert known() == ()
    own_registry.register(mine := metric(lambda row: 1.0))
    assert known() == (mine,)
