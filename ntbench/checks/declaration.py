"""Checks of what a method says about itself; none of them runs it."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from ntbench.method import Method
from ntbench.sources import source_file

_INTERFACE = "ntbench.method"
_UNKNOWN = "no_such_hyper_parameter"


def check_documented(method: Method) -> None:
    """The file says in its first paragraph what the method does, and `paper` is a URL or the file says `No paper`."""
    text = inspect.getdoc(inspect.getmodule(type(method))) or ""
    summary = text.split("\n\n")[0]
    if len(summary.split()) < 3:
        raise AssertionError(f"the file begins with {summary!r}; begin it with a docstring that says what it does")
    if not method.paper.startswith(("https://", "http://")) and "no paper" not in text.lower():
        raise AssertionError(f"paper = {method.paper!r}; give a URL, or write `No paper` into the file's docstring")


def check_named_as_its_file(method: Method) -> None:
    """A file is named after the method that it holds."""
    stem = Path(source_file(type(method))).stem
    if _owns_its_file(method) and stem not in (method.name, "__init__"):
        raise AssertionError(f"{method.name!r} lives in {stem}.py; name the file {method.name}.py or change `name`")


def check_imports_only_the_interface(method: Method) -> None:
    """Of ntbench, the file imports ntbench.method alone, which has no way to the test data."""
    if not _owns_its_file(method):
        return
    for name in _imports(Path(source_file(type(method))).read_text(encoding="utf-8")):
        if name.split(".")[0] == "ntbench" and not f"{name}.".startswith(f"{_INTERFACE}."):
            raise AssertionError(f"the file imports {name}; import from {_INTERFACE} what it exports, and nothing else")


def check_refuses_unknown_settings(method: Method) -> None:
    """Unknown hyper-parameters are refused, and the known ones cannot be changed."""
    cls = type(method)
    try:
        cls(**{**dict(method), _UNKNOWN: 1})
    except ValidationError:
        pass
    else:
        raise AssertionError(f"the hyper-parameter {_UNKNOWN!r} is accepted; leave `model_config` as Method has it")
    if not cls.model_config.get("frozen"):
        raise AssertionError("hyper-parameters can be changed after the start; leave `model_config` as Method has it")


def check_recipe_round_trip(method: Method) -> None:
    """The recipe, written as JSON, builds the same method again; this is how workers get it."""
    again = type(method)(**json.loads(json.dumps(method.spec().params)))
    for name, value in dict(method).items():
        if getattr(again, name) != value:
            raise AssertionError(
                f"{name} = {value!r} comes back from its recipe as {getattr(again, name)!r}; "
                "use numbers, strings, booleans and tuples of them as hyper-parameters"
            )


def check_has_defaults(method: Method) -> None:
    """Every hyper-parameter has a default, so that the name alone is enough for a row."""
    for name, info in type(method).model_fields.items():
        if info.is_required():
            raise AssertionError(f"the hyper-parameter {name!r} has no default; give it the value that you recommend")


def check_settings_are_fields(method: Method) -> None:
    """Every setting of an instance is a field, since nothing else is part of the recipe."""
    private = sorted(type(method).__private_attributes__)
    if private:
        raise AssertionError(f"private attributes {', '.join(private)} are no part of the recipe; make them fields")


def _owns_its_file(method: Method) -> bool:
    """Return whether the class stands in a file of its own right, and not inside a function of some test."""
    return "<locals>" not in type(method).__qualname__ and Path(source_file(type(method))).is_file()


def _imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            # `from ntbench import data` names a module as well as a package.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from names if node.module == "ntbench" else [str(node.module)]
