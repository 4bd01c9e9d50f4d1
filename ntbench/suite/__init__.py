"""Suites: frozen, versioned grids of tasks, defenses, attacks, budgets and seeds, read from TOML.

Here enter what a suite may say and how it is read; nothing of how it is run.
"""

from ntbench.suite.entries import (
    AttackEntry,
    DefenseEntry,
    Entry,
    PaperSetting,
    Planned,
    Protocol,
    joined_attacks,
)
from ntbench.suite.grid import Limits, Suite
from ntbench.suite.reading import explained, load_suite, parse_suite, suite_names

__all__ = [
    "AttackEntry",
    "DefenseEntry",
    "Entry",
    "Limits",
    "PaperSetting",
    "Planned",
    "Protocol",
    "Suite",
    "explained",
    "joined_attacks",
    "load_suite",
    "parse_suite",
    "suite_names",
]
