import math

import pandas as pd
import pytest

from ntbench.report.display import (
    COLUMNS,
    cells,
    filled,
    header_groups,
    letters,
    number,
    percent,
    rank,
    ratio,
    row_name,
    with_interval,
)


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_missing_numbers_are_dashes(missing: object) -> None:
    assert number(missing) == percent(missing) == "-"
    assert ratio({"x": missing, "x_censored": missing}, "x") == "-"
    assert with_interval({"x": missing, "x_low": missing, "x_high": missing}, "x") == "-"
    assert rank({"rank": missing}) == "-"


def test_numbers_have_a_sign_where_it_matters_but_no_negative_zero() -> None:
    assert number(-0.001) == "0.00"
    assert number(-0.001, signed=True) == "0.00"
    assert number(0.246, signed=True) == "+0.25"
    assert percent(0.9934) == "99.3"
    assert percent(-0.0634, signed=True) == "-6.3"


def test_an_interval_is_shown_only_where_there_is_one() -> None:
    row = {"slc": -0.4, "slc_low": -0.45, "slc_high": -0.321}
    assert with_interval(row, "slc") == "-0.40 [-0.45, -0.32]"
    assert with_interval(row | {"slc_low": math.nan}, "slc") == "-0.40"


def test_an_overhead_is_a_lower_bound_from_half_of_the_seeds_on() -> None:
    assert ratio({"x": 4.8, "x_censored": 0.5}, "x") == "> 4.8"
    assert ratio({"x": 4.8, "x_censored": 1 / 3}, "x") == "4.8"
    assert ratio({"x": 0.6666, "x_censored": 0.0}, "x") == "0.67"


def test_a_rank_shows_its_range() -> None:
    assert rank({"rank": 2, "rank_low": 1, "rank_high": 3}) == "2 [1, 3]"
    assert rank({"rank": 2, "rank_low": pd.NA, "rank_high": pd.NA}) == "2"


def test_needs_have_initials() -> None:
    assert letters("source labels, target labels") == "S+T"
    assert letters("source labels, target images") == "S+t"
    assert letters("nothing") == "none"
    assert letters("") == letters(None) == "-"
    assert letters("a licence") == "a licence"


def test_short_columns_leave_the_interval_out() -> None:
    row = {"auto_slc": -0.4, "auto_slc_low": -0.45, "auto_slc_high": -0.321, "worst_steps": 1920.0}
    texts = cells(row, ("auto", "auto_slc", "worst_steps", "grid"))
    assert texts == {"auto": "-0.40", "auto_slc": "-0.40 [-0.45, -0.32]", "worst_steps": "1920", "grid": "-"}


def test_row_names_tell_masks_apart_and_stay_short() -> None:
    assert row_name("ntp", "dense") == "ntp"
    assert row_name("ntp", "keep") == "ntp (mask kept)"
    assert row_name("x" * 60, "dense") == "x" * 21 + "..."


def test_an_empty_record_has_a_text_in_every_column() -> None:
    texts = cells({})
    assert set(texts) == set(COLUMNS)
    assert set(texts.values()) <= {"-", "no", "-/-"}


def test_header_groups_are_the_runs_of_equal_groups() -> None:
    assert header_groups(("rank", "paper_slc", "paper_attack", "slc", "holds")) == [
        ("", 1),
        ("Paper setting", 2),
        ("Worst case", 1),
        ("", 1),
    ]


def test_columns_that_say_nothing_are_left_out() -> None:
    rows: list[dict[str, object]] = [
        {"defense": "a", "slc": 0.5, "auto_slc": float("nan")},
        {"defense": "b", "slc": None, "auto_slc": None},
    ]
    assert filled(rows, ("defense", "auto", "worst")) == ("defense", "worst")
