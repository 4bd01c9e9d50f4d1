import math

import pandas as pd
import pytest

from ntbench.report.display import (
    bounded,
    count,
    factor,
    line,
    listed,
    number,
    percent,
    points,
    rank,
    row_name,
    seconds,
    short,
    some,
    verdict,
    with_interval,
    with_spread,
    yes,
)


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_missing_numbers_are_dashes(missing: object) -> None:
    assert number(missing) == percent(missing) == factor(missing) == count(missing) == seconds(missing) == "-"
    assert bounded({"x": missing, "x_bound": "<"}, "x") == "-"
    assert with_interval({"x": missing, "x_low": missing, "x_high": missing}, "x") == "-"
    assert rank({"rank": missing}) == "-"
    assert not yes({"x": missing}, "x") and not yes({}, "x")


def test_numbers_have_a_sign_where_it_matters_but_no_negative_zero() -> None:
    assert number(-0.001) == "0.00"
    assert number(-0.001, signed=True) == "0.00"
    assert number(0.246, signed=True) == "+0.25"
    assert percent(0.9934) == "99.3"
    assert percent(-0.0634, signed=True) == "-6.3"
    assert (factor(0.6666), factor(12.34)) == ("0.67", "12.3")
    assert (count(614400), count(3.2e13)) == ("614,400", "3.2e+13")
    assert (seconds(1.25), seconds(61.5)) == ("1.2", "62")


def test_an_interval_is_shown_only_where_there_is_one_and_may_be_open() -> None:
    row = {"slc": -0.4, "slc_low": -0.45, "slc_high": -0.321}
    assert with_interval(row, "slc") == "-0.40 [-0.45, -0.32]"
    assert with_interval(row | {"slc_low": math.nan}, "slc") == "-0.40"
    assert with_interval(row | {"slc_low": -math.inf, "slc_high": math.inf}, "slc") == "-0.40 [-inf, inf]"


def test_a_bound_has_its_sign() -> None:
    assert bounded({"x": 0.8, "x_bound": "<"}, "x") == "< 0.80"
    assert bounded({"x": 0.8, "x_bound": ""}, "x") == "0.80"


def test_a_rank_shows_its_range() -> None:
    assert rank({"rank": 2, "rank_low": 1, "rank_high": 3}) == "2 [1, 3]"
    assert rank({"rank": 2, "rank_low": pd.NA, "rank_high": pd.NA}) == "2"


def test_row_names_tell_masks_apart() -> None:
    assert row_name({"defense": "ntp", "mask": "dense"}) == "ntp"
    assert row_name({"defense": "ntp", "mask": "keep"}) == "ntp (mask kept)"


def test_long_names_keep_their_ends_and_one_line() -> None:
    assert short("x" * 60 + "end", 12) == "xxxxx...xend"
    assert short("a\nb\x00c") == line("a\nb\x00c") == "a b c"


def test_the_verdict_none_is_not_taken_for_the_row_none() -> None:
    assert [verdict({"verdict": said}) for said in ("holds", "none", "")] == ["holds", "no verdict", "-"]


def test_names_are_enumerated_and_many_are_counted() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcdef"), 3) == "a, b, c and 3 more"
    assert listed([]) == ""


def test_a_tie_of_a_published_row_is_one_in_full() -> None:
    full = 0.0085 - 1e-12
    assert points(full) == points(round(full, 6)) == "0.8"


def test_a_spread_stands_behind_its_mean_and_no_share_is_a_dash() -> None:
    assert with_spread({"kid": 1.5, "kid_spread": 0.25}, "kid") == "1.50 ± 0.25"
    assert with_spread({"kid": 1.5}, "kid") == "1.50" and with_spread({}, "kid") == "-"
    assert (some(0.125), some(0.0), some(None)) == ("12.5", "-", "-")
