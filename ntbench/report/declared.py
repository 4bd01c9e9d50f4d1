"""What our own methods say of themselves, read from their source: importing them takes seconds, reading them none."""

from __future__ import annotations

import ast
import pkgutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ntbench.access import Access, defense_needs
from ntbench.registry import OURS

ROOTS: dict[str, dict[str, Any]] = {
    "Defense": {"kind": "defense", "needs_source": True, "needs_target": False, "needs_target_labels": False},
    "Attack": {"kind": "attack", "access": Access()},
}
"""What a method inherits from the classes of ours that it derives from."""
COMPUTED = ast.Name("computed")


class UnreadableError(Exception):
    """A method does not say plainly in its source what it is; only importing it would tell."""


def declared_methods() -> dict[str, dict[str, str]]:
    """Return one line a method by kind and name; raises UnreadableError where source alone does not tell."""
    found: dict[str, dict[str, str]] = {"defense": {}, "attack": {}}
    for file in _files():
        for facts, text in _methods(file):
            found[facts["kind"]][facts["name"]] = described(text, _needs(facts))
    return {kind: dict(sorted(lines.items())) for kind, lines in found.items()}


def declared_papers() -> dict[tuple[str, str], tuple[str, str]]:
    """Return the address of the paper and the docstring by kind and name; raises UnreadableError as above."""
    methods = [method for file in _files() for method in _methods(file)]
    return {(facts["kind"], facts["name"]): (facts.get("paper", ""), text) for facts, text in methods}


def described(text: str, needs: str) -> str:
    """Return the one line of a method: the first paragraph of its docstring, and what it needs."""
    first = text.split("\n\n")[0].replace("\n", " ")
    return f"{first} Needs {needs}."


def _files() -> Iterator[Path]:
    for package in OURS:
        spec = find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            names = (module.name for module in pkgutil.iter_modules([folder]))
            yield from (Path(folder) / f"{name}.py" for name in names if not name.startswith("_"))


def _methods(file: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the facts and the docstring of every class of a file that is registered."""
    module = _parsed(file)
    registered = [c for c in _classes(module).values() if any(ast.unparse(d) == "register" for d in c.decorator_list)]
    if not registered:
        raise UnreadableError(f"{file}: no class is decorated with @register")
    for cls in registered:
        facts = _facts(cls, module, file)
        if not {"kind", "name"} <= facts.keys():
            raise UnreadableError(f"{file}: {cls.name} does not say its kind and name")
        yield facts, ast.get_docstring(module) or ast.get_docstring(cls) or ""


def _facts(cls: ast.ClassDef, module: ast.Module, file: Path) -> dict[str, Any]:
    """Return the attributes of a class that say what it is, its own before those of its bases."""
    facts: dict[str, Any] = {}
    for base in reversed(cls.bases):
        facts |= _inherited(ast.unparse(base), module, file)
    known = {"name", "needs", "paper"}.union(*ROOTS.values())
    return facts | {name: _value(value) for name, value in _assigned(cls) if name in known}


def _inherited(base: str, module: ast.Module, file: Path) -> dict[str, Any]:
    if base in ROOTS:
        return ROOTS[base]
    if base in (here := _classes(module)):
        return _facts(here[base], module, file)
    for node in (node for node in module.body if isinstance(node, ast.ImportFrom) and node.level == 1):
        for alias in (alias for alias in node.names if base == (alias.asname or alias.name)):
            sibling = file.with_name(f"{node.module}.py")
            return _inherited(alias.name, _parsed(sibling), sibling)
    raise UnreadableError(f"{file}: {base} is neither a class of ours nor of a sibling")


def _assigned(cls: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    for node in cls.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((target.id, node.value) for target in targets if isinstance(target, ast.Name))
        # A method may say in words of its own what it needs.
        elif isinstance(node, ast.FunctionDef) and node.name == "needs":
            yield node.name, last.value if (isinstance(last := node.body[-1], ast.Return) and last.value) else COMPUTED


def _value(node: ast.expr) -> Any:
    try:
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Access" and not node.args:
            return Access(**{str(word.arg): ast.literal_eval(word.value) for word in node.keywords})
        return ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        raise UnreadableError(f"{ast.unparse(node)!r} is no plain value: {error}") from None


def _needs(facts: dict[str, Any]) -> str:
    if "needs" in facts:
        return str(facts["needs"])
    if facts["kind"] == "attack":
        return str(facts["access"].needs())
    return defense_needs(facts["needs_source"], facts["needs_target"], facts["needs_target_labels"])


def _classes(module: ast.Module) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableError(f"{file}: {error}") from None
