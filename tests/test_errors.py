from __future__ import annotations

import pytest

from ntbench.errors import UserError, unknown


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sophn", "did you mean 'sophon'?"),
        ("NTP", "did you mean 'ntp'?"),
        ("zzz", "known: ntl, ntp, sophon"),
    ],
)
def test_unknown_names_the_value_and_the_nearest_or_all(name: str, hint: str) -> None:
    error = unknown("defense", name, ["sophon", "ntp", "ntl"])
    assert isinstance(error, UserError)
    assert str(error) == f"unknown defense {name!r}; {hint}"


def test_unknown_among_nothing() -> None:
    assert str(unknown("attack", "x", [])) == "unknown attack 'x'; known: none"


def test_of_very_many_names_some_are_told() -> None:
    assert str(unknown("architecture", "x", (f"net_{n:04}" for n in range(1300)))).endswith(
        ", net_0059, and 1,240 more"
    )
