"""The contract that every method keeps, for pytest and for `ntbench check`."""

from ntbench.checks.apart import check_apart
from ntbench.checks.contract import Check, Finding, check_method, checks_of, examine, parametrize_with_checks

__all__ = ["Check", "Finding", "check_apart", "check_method", "checks_of", "examine", "parametrize_with_checks"]
