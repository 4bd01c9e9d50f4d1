"""Errors that say what was wrong and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake in the input; the message names the value and the remedy, and no traceback is shown."""


class UnusableError(ValueError):
    """A defense that cannot keep the source task; the message tells how close it came and what would have kept it."""


class ForeignError(RuntimeError):
    """What went wrong in the process of foreign code, told as that process tells it."""


def unknown(what: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error for a name that is not among the known ones, with the nearest of them."""
    names = {each.lower(): each for each in sorted(known)}
    near = get_close_matches(name.lower(), names, n=1)
    hint = f"did you mean {names[near[0]]!r}?" if near else f"known: {_listed([*names.values()]) or 'none'}"
    return UserError(f"unknown {what} {name!r}; {hint}")


def _listed(names: list[str], shown: int = 60) -> str:
    rest = f", and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest


def first_line(text: str) -> str:
    """Return the first line of an error's text."""
    return text.strip().partition("\n")[0]
