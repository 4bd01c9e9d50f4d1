"""The contract that every method keeps, for pytest and for `ntbench check`."""

from ntbench.checks.apart import check_apart
from ntbench.checks.contract import Check, Finding, check_method, checks_of, examine, parametrize_with_checks
from ntbench.checks.images import check_builds_the_same_twice
from ntbench.checks.numbers import check_gives_the_same_twice, example_row

__all__ = [
    "Check",
    "Finding",
    "check_apart",
    "check_builds_the_same_twice",
    "check_gives_the_same_twice",
    "check_method",
    "checks_of",
    "examine",
    "example_row",
    "parametrize_with_checks",
]
