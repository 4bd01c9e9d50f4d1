"""Suites from TOML: a built-in one by name, or a file; what is wrong is told with the key, the value and the remedy."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ntbench.errors import UserError, unknown
from ntbench.suite.grid import Suite


def suite_names() -> list[str]:
    """Return the names of the built-in suites."""
    files = resources.files("ntbench.protocols").iterdir()
    return sorted(Path(file.name).stem for file in files if file.name.endswith(".toml"))


def load_suite(name: str) -> Suite:
    """Read a built-in suite by name, or any TOML file by path.

    Raises UserError that names the file, the key, the value and the remedy.
    """
    if name.endswith(".toml") or "/" in name:
        if not Path(name).is_file():
            raise UserError(f"suite file {name!r} does not exist; give the path of a TOML file or a built-in suite")
        return parse_suite(Path(name).read_text(encoding="utf-8", errors="replace"), name)
    if name not in suite_names():
        raise unknown("suite", name, suite_names())
    text = resources.files("ntbench.protocols").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return parse_suite(text, f"{name}.toml")


def parse_suite(text: str, origin: str) -> Suite:
    """Parse a suite's TOML; the origin names it in errors."""
    try:
        suite = Suite.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{origin}: not valid TOML: {error}") from None
    except ValidationError as error:
        raise explained(error, origin) from None
    if suite.dangling:
        raise UserError("\n".join(f"{origin}: {problem}" for problem in suite.dangling))
    return suite


def explained(error: ValidationError, origin: str) -> UserError:
    """Return what is wrong with a suite, a line a mistake, each with the key, the value and the remedy."""
    return UserError("\n".join(f"{origin}: {_explain(item)}" for item in _own(error.errors())))


def _own(mistakes: Sequence[Any]) -> list[Any]:
    """Return the mistakes without those that follow from others: a list is not too short for want of a sound item."""
    places = [item["loc"] for item in mistakes]

    def follows(item: Any) -> bool:
        inner = (place for place in places if len(place) > len(item["loc"]))
        return item["type"] == "too_short" and any(place[: len(item["loc"])] == item["loc"] for place in inner)

    return [item for item in mistakes if not follows(item)]


def _explain(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{key} = {item['input']!r}: unknown key; remove it or correct its spelling"
    if item["type"] == "missing":
        return f"{key}: missing; add it"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{key} = {item['input']!r}: {message}" if key else message
