"""Which hyper-parameters a method reads."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cached_property
from typing import Any

from ntbench.method import Method

_WHOLE = {"model_dump", "model_dump_json", "model_copy", "__dict__"}


def recorder(method: Method) -> tuple[Method, set[str]]:
    """Return a twin of a method and the set that fills with the names of the attributes that are read from it."""
    cls, read = type(method), set[str]()

    def record(self: Method, name: str) -> Any:
        read.add(name)
        return cls.__getattribute__(self, name)

    namespace = {"__getattribute__": record, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    twin_class: Any = type(cls.__name__, (cls,), namespace)
    twin: Method = twin_class.model_construct(**vars(method))
    read.clear()
    return twin, read


def fields_read(method: Method, read: set[str]) -> set[str]:
    """Return the fields among the attributes read, and those of the branches not taken in functions that ran."""
    if read & _WHOLE:
        return set(type(method).model_fields)
    branches = (_mentioned(inspect.getattr_static(type(method), name, None)) for name in read)
    return read.union(*branches) & set(type(method).model_fields)


def _mentioned(attribute: Any) -> set[str]:
    """Return the names that a function or property reads from its first argument."""
    wrapped = {property: "fget", cached_property: "func", classmethod: "__func__"}
    function = getattr(attribute, wrapped.get(type(attribute), ""), attribute)
    if not inspect.isfunction(function) or not function.__code__.co_varnames:
        return set()
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError):  # typed at a prompt: only what was read counts
        return set()
    me = function.__code__.co_varnames[0]
    # The body alone: a decorator is read when the class is made, not when it runs.
    body = [statement for node in tree.body if isinstance(node, ast.FunctionDef) for statement in node.body]
    nodes = (node for statement in body for node in ast.walk(statement) if isinstance(node, ast.Attribute))
    return {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == me}
