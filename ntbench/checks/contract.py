"""The list of checks and its two runners."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError
from rich.console import Console

from ntbench.checks import adaptation, conduct, declaration, protection
from ntbench.checks.images import check_builds_the_same_twice
from ntbench.checks.laboratory import labelled
from ntbench.checks.numbers import check_gives_the_same_twice
from ntbench.domains import Dataset
from ntbench.engine.limits import guarded
from ntbench.errors import unknown
from ntbench.method import Attack, Defense, Method, Metric
from ntbench.registry import KINDS, registry
from ntbench.sources import source_file

if TYPE_CHECKING:
    import pytest

Check = Callable[[Any], None]
SECONDS = 120.0
BUILD_SECONDS = 600.0
REFUSAL = "AssertionError: "


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    status: Literal["ok", "failed", "expected"]
    reason: str = ""


def check_expected_failures(method: Method) -> None:
    """Every expected failure names a check that is made of this method, and gives a reason."""
    names = {check.__name__ for check in checks_of(method)}
    for name, reason in method.expected_failures.items():
        if name not in names:
            raise AssertionError(f"expected_failures: {unknown('check', name, names)}")
        if not reason:
            raise AssertionError(f"expected_failures[{name!r}] is empty; say why the check cannot be kept")


def checks_of(method: Method) -> Iterator[Check]:
    """Yield every check that applies to a method, the cheapest first."""
    yield declaration.check_documented
    yield declaration.check_named_as_its_file
    yield declaration.check_imports_only_the_interface
    yield declaration.check_has_defaults
    yield declaration.check_refuses_unknown_settings
    yield declaration.check_settings_are_fields
    yield declaration.check_recipe_round_trip
    yield check_expected_failures
    yield conduct.check_runs
    yield conduct.check_repeats
    yield conduct.check_ignores_global_seeds
    yield conduct.check_ignores_the_given_mode
    yield conduct.check_restores_settings
    yield conduct.check_keeps_no_state
    yield conduct.check_looks_nothing_up
    yield conduct.check_settings_are_read
    yield conduct.check_leaves_data_alone
    yield conduct.check_finite
    yield conduct.check_predicts_one_by_one
    if isinstance(method, Defense):
        yield from _defense_checks(method)
    if isinstance(method, Attack):
        yield from _attack_checks(method)


def _defense_checks(method: Defense) -> Iterator[Check]:
    yield protection.check_survives_release
    yield protection.check_returns_a_trainable_model
    yield protection.check_keeps_source_accuracy
    if method.masked:
        yield protection.check_masks_something
    if not method.needs_target:
        yield conduct.check_uses_no_target
    else:
        if labelled(method):
            yield protection.check_takes_other_class_counts
        if not method.needs_target_labels:
            yield conduct.check_uses_no_target_labels


def _attack_checks(method: Attack) -> Iterator[Check]:
    yield adaptation.check_breaks_undefended_models
    if method.respects_mask:
        yield adaptation.check_keeps_zeros
    if not method.access.source:
        yield conduct.check_uses_no_source
    if method.access.target is None:
        yield conduct.check_uses_no_target
    elif method.access.target == "unlabelled":
        yield conduct.check_uses_no_target_labels
    elif labelled(method):
        yield adaptation.check_takes_other_class_counts


def parametrize_with_checks(methods: Iterable[Method]) -> pytest.MarkDecorator:
    """Return a decorator that runs a test once for every check of every method, as arguments `method` and `check`.

    Expected failures become strict xfails.
    """
    import pytest

    def case(method: Method, check: Check) -> Any:
        reason = method.expected_failures.get(check.__name__)
        marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True, raises=AssertionError)]
        return pytest.param(method, check, marks=marks, id=f"{_title(method)}-{check.__name__}")

    return pytest.mark.parametrize(("method", "check"), [case(m, check) for m in methods for check in checks_of(m)])


def examine(method: Method) -> Iterator[Finding]:
    """Make every check of a method and yield what it finds; a method that does not even run ends it."""
    for check in checks_of(method):
        finding = _find(check, method)
        yield finding
        if check is conduct.check_runs and finding.status == "failed":
            return


def check_method(name_or_file: str, console: Console) -> bool:
    """Print a line for every check of a registered name, or of all that a file holds, and return whether all is well.

    Raises UserError on names that nothing registers and on files that hold nothing.
    """
    found = _classes(name_or_file)
    return all([_report(cls, console) if issubclass(cls, Method) else _examined(cls, console) for cls in found])


def check_of(cls: type[Dataset] | type[Metric]) -> Callable[[Any], str]:
    """Return the one check of the class of a domain or metric, which says what it has found."""
    return check_gives_the_same_twice if issubclass(cls, Metric) else check_builds_the_same_twice


def _classes(name_or_file: str) -> list[type[Method] | type[Dataset] | type[Metric]]:
    known = [registry.get(kind, name) for kind in KINDS for name in registry.names(kind)]
    if name_or_file.endswith(".py"):
        file = Path(name_or_file).resolve()
        return [cls for cls in known if Path(source_file(cls)) == file] or registry.load_plugin(name_or_file)
    found = [cls for cls in known if cls.name == name_or_file]
    if not found:
        raise unknown("method", name_or_file, [cls.name for cls in known])
    return found


def _examined(cls: type[Dataset] | type[Metric], console: Console) -> bool:
    console.print(f"{cls.kind} {cls.name}", style="bold", highlight=False)
    found: list[str] = []
    status, error = guarded(BUILD_SECONDS, lambda: found.append(check_of(cls)(cls)))
    told = found[0] if found else _refusal(error)
    console.print(f"  {told}", style="green" if found else "red", highlight=False, markup=False, soft_wrap=True)
    return status == "ok"


def _report(cls: type[Method], console: Console) -> bool:
    console.print(f"{cls.kind} {cls.name}", style="bold", highlight=False)
    try:
        method = cls(**cls.quick)
    except ValidationError as error:
        reason = f"{error}\n  give every hyper-parameter a default, or a value in `quick`"
        _print(console, Finding("check_has_defaults", "failed", reason), "")
        return False
    failed = 0
    for finding in examine(method):
        _print(console, finding, _summaries(method)[finding.check])
        failed += finding.status == "failed"
    verdict = f"breaks the contract: {failed} checks failed" if failed else "keeps the contract"
    console.print(f"{method.name} {verdict}", style="red" if failed else "green", highlight=False)
    return not failed


def _print(console: Console, finding: Finding, summary: str) -> None:
    word, style = {"ok": ("ok", "green"), "failed": ("FAILED", "red"), "expected": ("expected failure", "yellow")}[
        finding.status
    ]
    text = finding.reason or summary
    console.print(f"  {finding.check}: ", end="", highlight=False, markup=False)
    console.print(word, style=style, end="", highlight=False)
    console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)


def _summaries(method: Method) -> dict[str, str]:
    return {check.__name__: (check.__doc__ or "").split("\n")[0] for check in checks_of(method)}


def _find(check: Check, method: Method) -> Finding:
    status, error = guarded(SECONDS, partial(check, method))
    expected = method.expected_failures.get(check.__name__)
    if status == "ok" and expected is not None:
        return Finding(
            check.__name__, "failed", f"passes, but `expected_failures` has it ({expected}); remove it there"
        )
    if status == "ok":
        return Finding(check.__name__, "ok")
    if not error.startswith(REFUSAL):
        return Finding(check.__name__, "failed", error)
    return Finding(check.__name__, "failed" if expected is None else "expected", expected or _refusal(error))


def _refusal(error: str) -> str:
    """Return a check's own message, which stands for itself; a crash needs its traceback."""
    return error.splitlines()[0].removeprefix(REFUSAL) if error.startswith(REFUSAL) else error


def _title(method: Method) -> str:
    """Return the name and every hyper-parameter that differs from its default."""
    fields = type(method).model_fields
    changed = [f"{name}={value}" for name, value in dict(method).items() if value != fields[name].default]
    return f"{method.name}({','.join(changed)})" if changed else method.name
